/* An engine is one side of one TLS connection, without input and output of its own: it is fed what came from the peer
** and gives what is to be sent. lua/agather/tls.lua drives it over a stream.
** The first failure of an engine is final: every later call gives the same one. */
#include "tls/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum { RECORD = 16384, ENCRYPT_MAX = 65536, IDLE_MAX = 4096 };

typedef struct engine {
  SSL *ssl; /* NULL once it is freed */
  BIO *in;  /* from the peer; the SSL's */
  BIO *out; /* to the peer; the SSL's */
  bool fed_end, shut;
  X509 *refused; /* the certificate that was not accepted, and why */
  long verify_error;
  char name[NAME_MAX_BYTES + 1]; /* of a client: whom it speaks to; empty where it does not say */
  tls_failure failure;
} engine;

static engine *check_engine(lua_State *L) {
  engine *e = luaL_checkudata(L, 1, ENGINE);
  if (e->ssl == NULL)
    luaL_error(L, "the TLS engine is freed");
  return e;
}

const char *tls_engine_server_name(const SSL *ssl) {
  engine *e = SSL_get_app_data(ssl);
  return e != NULL && e->name[0] != '\0' ? e->name : NULL;
}

/* Remembers the first thing that is wrong with the peer's certificates. */
static int on_verify(int ok, X509_STORE_CTX *store) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  engine *e = SSL_get_app_data(ssl);
  if (!ok && e->verify_error == X509_V_OK) {
    e->verify_error = X509_STORE_CTX_get_error(store);
    e->refused = X509_STORE_CTX_get_current_cert(store);
    if (e->refused != NULL)
      X509_up_ref(e->refused);
  }
  return ok;
}

void tls_engine_verify(SSL *ssl, int mode) { SSL_set_verify(ssl, mode, mode != SSL_VERIFY_NONE ? on_verify : NULL); }

/* ---- making and freeing ---- */

static void free_engine(engine *e) {
  SSL_free(e->ssl);
  X509_free(e->refused);
  e->ssl = NULL;
  e->refused = NULL;
  tls_clear_errors();
}

/* Names the server: in clear for it to choose a certificate, and as what its certificate must be for. */
static bool set_name(engine *e, const char *name) {
  X509_VERIFY_PARAM *param = SSL_get0_param(e->ssl);
  unsigned char address[16];
  strncpy(e->name, name, sizeof e->name - 1);
  if (inet_pton(AF_INET, name, address) == 1)
    return X509_VERIFY_PARAM_set1_ip(param, address, 4) == 1;
  if (inet_pton(AF_INET6, name, address) == 1)
    return X509_VERIFY_PARAM_set1_ip(param, address, 16) == 1;
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  return SSL_set_tlsext_host_name(e->ssl, name) == 1 && SSL_set1_host(e->ssl, name) == 1;
}

static bool set_up(engine *e, tls_context *context, bool server, const char *name) {
  e->ssl = SSL_new(context->ctx);
  if (e->ssl == NULL)
    return false;
  e->in = BIO_new(BIO_s_mem());
  e->out = BIO_new(BIO_s_mem());
  if (e->in == NULL || e->out == NULL) {
    BIO_free(e->in);
    BIO_free(e->out);
    return false;
  }
  SSL_set_bio(e->ssl, e->in, e->out);
  SSL_set_app_data(e->ssl, e);
  tls_engine_verify(e->ssl, server ? context->verify_client : context->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE);
  if (server) {
    SSL_set_accept_state(e->ssl);
    return true;
  }
  SSL_set_connect_state(e->ssl);
  if (name == NULL)
    return true;
  if (!set_name(e, name))
    return false;
  SSL_SESSION *session = tls_context_take_session(context, name);
  if (session != NULL) {
    SSL_set_session(e->ssl, session); /* one that is of no use any more is not an error: the handshake is a full one */
    SSL_SESSION_free(session);
  }
  return true;
}

/* Shared by client(context [, name]), where [name] is the server's, a host name or an address, and server(context). */
static int new_engine(lua_State *L, bool server) {
  tls_context *context = tls_context_check(L, 1);
  size_t size = 0;
  const char *name = server ? NULL : luaL_optlstring(L, 2, NULL, &size);
  luaL_argcheck(L, name == NULL || (size > 0 && size <= NAME_MAX_BYTES), 2, "a name must have 1 to 253 bytes");
  luaL_argcheck(L, name == NULL || strlen(name) == size, 2, "a name must not contain a zero byte");
  engine *e = lua_newuserdatauv(L, sizeof *e, 1);
  memset(e, 0, sizeof *e);
  luaL_setmetatable(L, ENGINE);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  tls_clear_errors();
  if (!set_up(e, context, server, name)) {
    tls_failure_take(&e->failure, "the connection cannot be set up");
    free_engine(e);
    return tls_failed(L, &e->failure);
  }
  return 1;
}

static int new_client(lua_State *L) { return new_engine(L, false); }

static int new_server(lua_State *L) { return new_engine(L, true); }

/* engine:free(): key material goes now, not with the next collection. Twice is harmless. */
static int engine_free(lua_State *L) {
  free_engine(luaL_checkudata(L, 1, ENGINE));
  return 0;
}

/* ---- bytes of the wire ---- */

/* Whether an empty buffer has grown so much that a connection at rest should not keep it. */
static bool is_grown(BIO *bio) {
  BUF_MEM *memory;
  BIO_get_mem_ptr(bio, &memory);
  return memory != NULL && memory->max > IDLE_MAX;
}

/* Gives the memory of the empty buffers back. Without memory for new ones the old ones stay. */
static void shrink_in(engine *e) {
  BIO *fresh = BIO_pending(e->in) == 0 && is_grown(e->in) ? BIO_new(BIO_s_mem()) : NULL;
  if (fresh == NULL)
    return;
  SSL_set0_rbio(e->ssl, fresh); /* frees the old one */
  e->in = fresh;
  if (e->fed_end)
    BIO_set_mem_eof_return(fresh, 0);
}

static void shrink_out(engine *e) {
  BIO *fresh = is_grown(e->out) ? BIO_new(BIO_s_mem()) : NULL;
  if (fresh == NULL) {
    BIO_reset(e->out);
    return;
  }
  SSL_set0_wbio(e->ssl, fresh);
  e->out = fresh;
}

/* engine:feed(bytes): what came from the peer. */
static int engine_feed(lua_State *L) {
  engine *e = check_engine(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  luaL_argcheck(L, size <= 1 << 30, 2, "too many bytes at once");
  tls_clear_errors();
  if (size > 0 && BIO_write(e->in, bytes, (int)size) != (int)size)
    return luaL_error(L, "not enough memory");
  return 0;
}

/* engine:feed_end(): nothing more will come. */
static int engine_feed_end(lua_State *L) {
  engine *e = check_engine(L);
  e->fed_end = true;
  BIO_set_mem_eof_return(e->in, 0);
  return 0;
}

/* engine:take(): what is to be sent, or nil. */
static int engine_take(lua_State *L) {
  engine *e = check_engine(L);
  char *data;
  long size = BIO_get_mem_data(e->out, &data);
  if (size <= 0)
    return 0;
  lua_pushlstring(L, data, (size_t)size);
  shrink_out(e);
  return 1;
}

/* engine:has_output(): whether take would give something. */
static int engine_has_output(lua_State *L) {
  lua_pushboolean(L, BIO_pending(check_engine(L)->out) > 0);
  return 1;
}

/* ---- handshake, reading, writing ---- */

/* Pushes what a call of OpenSSL that gave [result] means: false (the peer must send more), nil (it has ended cleanly),
** or nil, code, text. */
static int unfinished(lua_State *L, engine *e, int result) {
  switch (SSL_get_error(e->ssl, result)) {
  case SSL_ERROR_WANT_READ:
    shrink_in(e);
    lua_pushboolean(L, 0);
    return 1;
  case SSL_ERROR_ZERO_RETURN:
    lua_pushnil(L);
    return 1;
  default:
    if (e->verify_error != X509_V_OK)
      tls_failure_verify(&e->failure, e->verify_error, e->refused, e->name[0] != '\0' ? e->name : NULL);
    else
      tls_failure_take(&e->failure, NULL);
    return tls_failed(L, &e->failure);
  }
}

/* engine:handshake(): true when it is done, false when the peer must send more, or nil, code, text. */
static int engine_handshake(lua_State *L) {
  engine *e = check_engine(L);
  if (e->failure.code[0] != '\0')
    return tls_failed(L, &e->failure);
  tls_clear_errors();
  int result = SSL_do_handshake(e->ssl);
  if (result != 1)
    return unfinished(L, e, result);
  lua_pushboolean(L, 1);
  return 1;
}

/* engine:decrypt(n): 1 to n bytes, and never more than a record has; false when the peer must send more; nil at its
** clean end; or nil, code, text. */
static int engine_decrypt(lua_State *L) {
  engine *e = check_engine(L);
  lua_Integer n = luaL_checkinteger(L, 2);
  char bytes[RECORD];
  luaL_argcheck(L, n > 0, 2, "number of bytes must be positive");
  if (e->failure.code[0] != '\0')
    return tls_failed(L, &e->failure);
  luaL_checkstack(L, 3, NULL);
  tls_clear_errors();
  int result = SSL_read(e->ssl, bytes, n < RECORD ? (int)n : RECORD);
  if (result <= 0)
    return unfinished(L, e, result);
  shrink_in(e);
  lua_pushlstring(L, bytes, (size_t)result);
  return 1;
}

/* engine:encrypt(bytes, from): encrypts bytes from place [from] on, some records at most, and gives the place after the
** last that was taken; or nil, code, text. */
static int engine_encrypt(lua_State *L) {
  engine *e = check_engine(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  lua_Integer from = luaL_checkinteger(L, 3);
  luaL_argcheck(L, from >= 1 && (lua_Unsigned)from <= size, 3, "place out of range");
  if (e->failure.code[0] != '\0')
    return tls_failed(L, &e->failure);
  size_t done = (size_t)from - 1, end = size - done > ENCRYPT_MAX ? done + ENCRYPT_MAX : size;
  tls_clear_errors();
  while (done < end) {
    int result = SSL_write(e->ssl, bytes + done, (int)(end - done));
    if (result <= 0) {
      tls_failure_take(&e->failure, NULL);
      return tls_failed(L, &e->failure);
    }
    done += (size_t)result;
  }
  lua_pushinteger(L, (lua_Integer)done + 1);
  return 1;
}

/* engine:shutdown(): no more will be encrypted; tells the peer so. True, or nil, code, text. Twice is harmless. */
static int engine_shutdown(lua_State *L) {
  engine *e = check_engine(L);
  if (!e->shut && e->failure.code[0] == '\0' && SSL_is_init_finished(e->ssl)) {
    tls_clear_errors();
    if (SSL_shutdown(e->ssl) < 0) { /* 0: sent, and the peer has sent none yet */
      tls_failure failure = {"", ""};
      tls_failure_take(&failure, NULL);
      return tls_failed(L, &failure);
    }
    e->shut = true;
    tls_clear_errors();
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- what was agreed ---- */

static int engine_version(lua_State *L) {
  lua_pushstring(L, SSL_get_version(check_engine(L)->ssl));
  return 1;
}

static int engine_cipher(lua_State *L) {
  lua_pushstring(L, SSL_get_cipher_name(check_engine(L)->ssl));
  return 1;
}

static int engine_alpn(lua_State *L) {
  const unsigned char *name;
  unsigned size;
  SSL_get0_alpn_selected(check_engine(L)->ssl, &name, &size);
  if (size == 0)
    return 0;
  lua_pushlstring(L, (const char *)name, size);
  return 1;
}

/* engine:server_name(): the name that the client asked for, or nil. */
static int engine_server_name(lua_State *L) {
  lua_pushstring(L, SSL_get_servername(check_engine(L)->ssl, TLSEXT_NAMETYPE_host_name));
  return 1;
}

/* engine:resumed(): whether an earlier session went on, without certificates. */
static int engine_resumed(lua_State *L) {
  lua_pushboolean(L, SSL_session_reused(check_engine(L)->ssl));
  return 1;
}

static int engine_peer_certificate(lua_State *L) {
  X509 *certificate = SSL_get0_peer_certificate(check_engine(L)->ssl);
  if (certificate == NULL)
    return 0;
  tls_push_certificate(L, certificate);
  return 1;
}

void tls_open_engine(lua_State *L) {
  static const luaL_Reg methods[] = {{"feed", engine_feed},           {"feed_end", engine_feed_end},
                                     {"take", engine_take},           {"has_output", engine_has_output},
                                     {"handshake", engine_handshake}, {"decrypt", engine_decrypt},
                                     {"encrypt", engine_encrypt},     {"shutdown", engine_shutdown},
                                     {"version", engine_version},     {"cipher", engine_cipher},
                                     {"alpn", engine_alpn},           {"server_name", engine_server_name},
                                     {"resumed", engine_resumed},     {"peer_certificate", engine_peer_certificate},
                                     {"free", engine_free},           {NULL, NULL}};
  luaL_newmetatable(L, ENGINE);
  lua_pushcfunction(L, engine_free);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, new_client);
  lua_setfield(L, -2, "client");
  lua_pushcfunction(L, new_server);
  lua_setfield(L, -2, "server");
}
