/* Which certificate a server shows, and whether it wants one: as the context says that is for the name that the client
** asks for (SNI). */
#include "tls/tls.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static tls_context *find(const tls_context *context, const char *name) {
  const char *dot = strchr(name, '.');
  tls_context *wild = NULL;
  for (const tls_name *n = context->names; n != NULL; n = n->next) {
    if (strcasecmp(n->pattern, name) == 0)
      return n->context;
    if (strncmp(n->pattern, "*.", 2) == 0 && dot != NULL && strcasecmp(n->pattern + 1, dot) == 0)
      wild = n->context;
  }
  return wild;
}

static int on_name(SSL *ssl, int *alert, void *data) {
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  tls_context *found = name != NULL ? find(data, name) : NULL;
  (void)alert;
  if (found != NULL && found->ctx != NULL) {
    SSL_set_SSL_CTX(ssl, found->ctx);
    tls_engine_verify(ssl, found->verify_client); /* the connection took its own before the name was known */
  }
  return SSL_TLSEXT_ERR_OK;
}

/* context:add_name(pattern, other): clients that ask for the name, or for one label instead of "*" before it, get what
** the other context has. */
int tls_context_add_name(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  size_t size;
  const char *pattern = luaL_checklstring(L, 2, &size);
  tls_context *other = tls_context_check(L, 3);
  luaL_argcheck(L, size > 0 && size <= NAME_MAX_BYTES && strlen(pattern) == size, 2, "a host name expected");
  if (lua_getiuservalue(L, 1, 1) != LUA_TTABLE) { /* the contexts, which must live as long */
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, 1);
  }
  lua_pushvalue(L, 3);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  tls_name *n = calloc(1, sizeof *n + size + 1);
  if (n == NULL)
    return luaL_error(L, "not enough memory");
  memcpy(n->pattern, pattern, size);
  n->context = other;
  n->next = context->names;
  context->names = n;
  return 0;
}

void tls_context_watch_names(tls_context *context) {
  SSL_CTX_set_tlsext_servername_callback(context->ctx, on_name);
  SSL_CTX_set_tlsext_servername_arg(context->ctx, context);
}

void tls_context_free_names(tls_context *context) {
  while (context->names != NULL) {
    tls_name *n = context->names;
    context->names = n->next;
    free(n);
  }
}
