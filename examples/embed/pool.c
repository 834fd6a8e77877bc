/* A builtin that computes on other threads. count_primes(limit) hands the work to a pool of threads and returns a
** future at once; whichever thread has the number answers it. The script's other tasks run on meanwhile, and a
** cancelled count stops. Build: cc pool.c $(pkg-config --cflags --libs agather lua5.4) -lpthread */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char script[] =
    "local agather = require 'agather.core' "
    "local ticks = 0 "
    "local ticker = agather.spawn(function() while true do agather.sleep(0.001) ticks = ticks + 1 end end) "
    "local endless = count_primes(math.maxinteger) "
    "local counts = agather.gather(count_primes(100000), count_primes(1000), count_primes(10)):await() "
    "for i = 1, counts.n do print('primes', counts[i]) end "
    "print('negative', pcall(agather.await, count_primes(-1))) "
    "agather.sleep(0.005) " /* one count still goes on */
    "print('the loop ran on', ticks > 0) "
    "endless:cancel() "
    "print('cancelled', endless:cancelled())";

/* ---- the pool: knows nothing of Lua ---- */

typedef struct job {
  struct job *next;
  ag_op *op; /* the pool's reference */
  long long limit, count;
} job;

enum { THREADS = 4 };

static struct {
  pthread_mutex_t lock;
  pthread_cond_t some;
  job *first, **last;
  bool closing;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .some = PTHREAD_COND_INITIALIZER, .last = &pool.first};

static void give_job(job *j) {
  pthread_mutex_lock(&pool.lock);
  j->next = NULL;
  *pool.last = j;
  pool.last = &j->next;
  pthread_cond_signal(&pool.some);
  pthread_mutex_unlock(&pool.lock);
}

/* Waits for a job; NULL: the pool closes and none is left. */
static job *take_job(void) {
  pthread_mutex_lock(&pool.lock);
  while (pool.first == NULL && !pool.closing)
    pthread_cond_wait(&pool.some, &pool.lock);
  job *j = pool.first;
  if (j != NULL && (pool.first = j->next) == NULL)
    pool.last = &pool.first;
  pthread_mutex_unlock(&pool.lock);
  return j;
}

static bool is_prime(long long n) {
  for (long long d = 2; d * d <= n; d++)
    if (n % d == 0)
      return false;
  return n > 1;
}

/* Runs on the loop's thread when the answer has arrived there: only here may Lua be touched. */
static int push_count(lua_State *L, void *data) {
  lua_pushinteger(L, ((job *)data)->count);
  return 1;
}

static void *work(void *unused) {
  (void)unused;
  for (job *j; (j = take_job()) != NULL;) {
    ag_op *op = j->op;
    if (j->limit < 0) {
      ag_op_reject(op, NULL, "the limit is below zero");
      free(j);
    } else {
      /* Not wanted any more: the script cancelled the future, or the loop has closed. */
      for (long long n = 2; n < j->limit && ag_op_wanted(op); n++)
        j->count += is_prime(n);
      ag_op_resolve(op, push_count, free, j); /* frees the job when it is done with it, also where nobody wants it */
    }
    ag_op_unref(op);
  }
  return NULL;
}

/* ---- the builtin ---- */

/* count_primes(limit): a future of how many primes there are below the limit. */
static int count_primes(lua_State *L) {
  long long limit = luaL_checkinteger(L, 1);
  ag_loop *loop = ag_running_loop(L, "count_primes"); /* raises outside a loop: before anything is allocated */
  job *j = calloc(1, sizeof *j);
  if (j == NULL)
    return luaL_error(L, "not enough memory");
  j->limit = limit;
  if (ag_op_create(L, loop, NULL, NULL, &j->op) != AG_OK) {
    free(j);
    return lua_error(L);
  }
  give_job(j);
  return 1; /* the future, which ag_op_create has pushed */
}

int main(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_register(L, "count_primes", count_primes);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++)
    if (pthread_create(&threads[i], NULL, work, NULL) != 0)
      return 1;

  ag_loop *loop = NULL;
  bool ok = ag_open(L) == AG_OK && ag_loop_create(L, &loop) == AG_OK && luaL_loadstring(L, script) == LUA_OK &&
            ag_spawn(L, loop, 0) == AG_OK && /* pushes the task, a future */
            ag_run_until(L, loop, -1) == AG_OK && ag_future_outcome(L, -1) == AG_OK;
  if (!ok)
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  if (loop != NULL)
    ag_loop_destroy(L, loop); /* cancels the ticker; from here on nobody wants an answer */
  lua_close(L);

  pthread_mutex_lock(&pool.lock);
  pool.closing = true;
  pthread_cond_broadcast(&pool.some);
  pthread_mutex_unlock(&pool.lock);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  return ok ? 0 : 1;
}
