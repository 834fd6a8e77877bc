/* Contexts: what many connections share. Certificate and key, whom to trust, protocols, versions, a client's sessions.
** A context is filled by its methods and not changed once an engine uses it. */
#include "tls/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

/* The registry's key for the system's authorities: one store per Lua state, read once. */
static const char system_store = 0;

tls_context *tls_context_check(lua_State *L, int index) {
  tls_context *context = luaL_checkudata(L, index, CONTEXT);
  luaL_argcheck(L, context->ctx != NULL, index, "the context is closed");
  return context;
}

/* ---- sessions of a client ---- */

static tls_session *find_session(tls_context *context, const char *name) {
  for (int i = 0; i < SESSIONS; i++)
    if (context->sessions[i].session != NULL && strcmp(context->sessions[i].name, name) == 0)
      return &context->sessions[i];
  return NULL;
}

SSL_SESSION *tls_context_take_session(tls_context *context, const char *name) {
  tls_session *place = find_session(context, name);
  if (place == NULL)
    return NULL;
  SSL_SESSION *session = place->session;
  if (SSL_SESSION_get_protocol_version(session) < TLS1_3_VERSION)
    return SSL_SESSION_dup(session); /* a connection that ends without a word spoils the session that it has */
  place->session = NULL;             /* a ticket of TLS 1.3 is for one use, so that nobody can link two connections */
  return session;
}

void tls_context_keep_session(tls_context *context, const char *name, SSL_SESSION *session) {
  tls_session *place = find_session(context, name);
  if (place == NULL) {
    place = &context->sessions[context->next_session];
    context->next_session = (context->next_session + 1) % SESSIONS;
  }
  SSL_SESSION_free(place->session);
  strncpy(place->name, name, sizeof place->name - 1);
  place->session = session;
}

static int on_new_session(SSL *ssl, SSL_SESSION *session) {
  const char *name = tls_engine_server_name(ssl);
  SSL_SESSION *copy = name != NULL ? SSL_SESSION_dup(session) : NULL;
  if (copy != NULL)
    tls_context_keep_session(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)), name, copy);
  return 0; /* the session stays the connection's */
}

/* ---- certificate and key ---- */

typedef struct password {
  const char *text; /* NULL: none was given */
  size_t size;
  bool asked;
} password;

/* OpenSSL's own callback would ask on the terminal. */
static int give_password(char *buffer, int size, int writing, void *data) {
  password *p = data;
  (void)writing;
  p->asked = true;
  if (p->text == NULL || p->size > (size_t)size)
    return -1;
  memcpy(buffer, p->text, p->size);
  return (int)p->size;
}

/* The next certificate of [bio]; NULL at the end of it, or with [failure] set. */
static X509 *next_certificate(BIO *bio, tls_failure *failure, const char *what) {
  password none = {NULL, 0, false};
  tls_clear_errors();
  X509 *certificate = PEM_read_bio_X509_AUX(bio, NULL, give_password, &none);
  if (certificate != NULL)
    return certificate;
  unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE)
    tls_clear_errors(); /* the end */
  else
    tls_failure_take(failure, what);
  return NULL;
}

static void use_chain(SSL_CTX *ctx, BIO *bio, tls_failure *failure) {
  static const char what[] = "the certificate cannot be used";
  X509 *certificate = next_certificate(bio, failure, what);
  if (certificate == NULL) {
    if (failure->code[0] == '\0')
      tls_failure_set(failure, "NO_CERTIFICATE", "%s: there is none in the PEM text", what);
    return;
  }
  bool used = SSL_CTX_use_certificate(ctx, certificate) == 1;
  X509_free(certificate); /* the context has a reference of its own */
  if (!used) {
    tls_failure_take(failure, what);
    return;
  }
  SSL_CTX_clear_chain_certs(ctx);
  while ((certificate = next_certificate(bio, failure, what)) != NULL) {
    if (SSL_CTX_add0_chain_cert(ctx, certificate) != 1) {
      X509_free(certificate);
      tls_failure_take(failure, what);
      return;
    }
  }
}

static void use_key(SSL_CTX *ctx, BIO *bio, password *p, tls_failure *failure) {
  tls_clear_errors();
  EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, give_password, p);
  if (key != NULL) {
    if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
      tls_failure_take(failure, "the private key does not belong to the certificate");
    EVP_PKEY_free(key);
  } else if (p->asked && p->text == NULL) {
    tls_failure_set(failure, "KEY_PASSWORD_REQUIRED", "the private key is encrypted: give its password");
  } else if (p->asked) {
    tls_failure_set(failure, "KEY_PASSWORD_WRONG", "the private key cannot be decrypted: wrong password");
  } else { /* the decoder's own words are of no help */
    tls_failure_take(failure, NULL);
    if (strcmp(failure->code, "ENOMEM") != 0)
      tls_failure_set(failure, "NO_PRIVATE_KEY", "the private key cannot be used: there is none in the PEM text");
  }
  tls_clear_errors();
}

/* true, or nil, code, text. */
static int answer(lua_State *L, const tls_failure *failure) {
  tls_clear_errors();
  if (failure->code[0] != '\0')
    return tls_failed(L, failure);
  lua_pushboolean(L, 1);
  return 1;
}

/* A reader of the PEM text at [index]. */
static BIO *text_bio(lua_State *L, int index) {
  size_t size;
  const char *text = luaL_checklstring(L, index, &size);
  luaL_argcheck(L, size <= 1 << 24, index, "PEM text is too long");
  BIO *bio = BIO_new_mem_buf(text, (int)size);
  if (bio == NULL)
    luaL_error(L, "not enough memory");
  return bio;
}

/* context:use_certificate(certificates, key [, password]): PEM texts; the first certificate is ours, then come those
** between it and an authority. */
static int context_use_certificate(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  tls_failure failure = {"", ""};
  password p = {NULL, 0, false};
  luaL_checkstring(L, 2);
  luaL_checkstring(L, 3);
  p.text = luaL_optlstring(L, 4, NULL, &p.size);
  BIO *bio = text_bio(L, 2);
  use_chain(context->ctx, bio, &failure);
  BIO_free(bio);
  if (failure.code[0] == '\0') {
    bio = text_bio(L, 3);
    use_key(context->ctx, bio, &p, &failure);
    BIO_free(bio);
  }
  return answer(L, &failure);
}

/* ---- whom to trust ---- */

/* context:trust(certificates): adds the authorities of a PEM text; a server tells clients that it knows them. */
static int context_trust(lua_State *L) {
  static const char what[] = "an authority's certificate cannot be used";
  tls_context *context = tls_context_check(L, 1);
  tls_failure failure = {"", ""};
  BIO *bio = text_bio(L, 2);
  X509_STORE *store = SSL_CTX_get_cert_store(context->ctx);
  int count = 0;
  for (X509 *certificate; (certificate = next_certificate(bio, &failure, what)) != NULL; count++) {
    bool added = X509_STORE_add_cert(store, certificate) == 1 && SSL_CTX_add_client_CA(context->ctx, certificate) == 1;
    X509_free(certificate);
    if (!added) {
      tls_failure_take(&failure, what);
      break;
    }
  }
  BIO_free(bio);
  if (count == 0 && failure.code[0] == '\0')
    tls_failure_set(&failure, "NO_CERTIFICATE", "%s: there is none in the PEM text", what);
  return answer(L, &failure);
}

/* context:trust_path(directory): authorities by the hash of their names, as c_rehash makes it; read when they are
** asked for. */
static int context_trust_path(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  tls_failure failure = {"", ""};
  const char *path = luaL_checkstring(L, 2);
  tls_clear_errors();
  if (X509_STORE_load_path(SSL_CTX_get_cert_store(context->ctx), path) != 1)
    tls_failure_take(&failure, "the directory of authorities cannot be used");
  return answer(L, &failure);
}

static int free_store(lua_State *L) {
  X509_STORE **store = lua_touserdata(L, 1);
  X509_STORE_free(*store);
  *store = NULL;
  return 0;
}

/* context:trust_system(): the system's authorities, and no other. */
static int context_trust_system(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  tls_failure failure = {"", ""};
  tls_clear_errors();
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &system_store) == LUA_TNIL) {
    X509_STORE **box = lua_newuserdatauv(L, sizeof(X509_STORE *), 0);
    *box = NULL;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, free_store);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    *box = X509_STORE_new();
    if (*box == NULL || X509_STORE_set_default_paths(*box) != 1) {
      tls_failure_take(&failure, "the system's authorities cannot be read");
      return answer(L, &failure);
    }
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &system_store);
  }
  X509_STORE **store = lua_touserdata(L, -1);
  SSL_CTX_set1_cert_store(context->ctx, *store);
  return answer(L, &failure);
}

/* context:verify(on): whether clients verify servers. */
static int context_verify(lua_State *L) {
  tls_context_check(L, 1)->verify = lua_toboolean(L, 2);
  return 0;
}

/* context:verify_client(mode): what servers want of clients: "none", "optional", "required". */
static int context_verify_client(lua_State *L) {
  static const char *const names[] = {"none", "optional", "required", NULL};
  static const int modes[] = {SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};
  tls_context *context = tls_context_check(L, 1);
  context->verify_client = modes[luaL_checkoption(L, 2, NULL, names)];
  return 0;
}

/* context:no_sessions(): a server's clients cannot go on with earlier sessions. */
static int context_no_sessions(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  SSL_CTX_set_options(context->ctx, SSL_OP_NO_TICKET); /* of TLS 1.2 */
  SSL_CTX_set_num_tickets(context->ctx, 0);            /* of TLS 1.3 */
  return 0;
}

/* ---- protocols ---- */

static int check_version(lua_State *L, int index) {
  static const char *const names[] = {"TLSv1.2", "TLSv1.3", NULL};
  static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
  return lua_isnoneornil(L, index) ? 0 : versions[luaL_checkoption(L, index, NULL, names)];
}

/* context:versions([lowest [, highest]]): "TLSv1.2" or "TLSv1.3". */
static int context_versions(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  int lowest = check_version(L, 2), highest = check_version(L, 3);
  if (lowest != 0)
    SSL_CTX_set_min_proto_version(context->ctx, lowest);
  SSL_CTX_set_max_proto_version(context->ctx, highest);
  return 0;
}

/* The first of ours that the client offers; none: the handshake fails. */
static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *offered,
                           unsigned offered_size, void *data) {
  tls_context *context = data;
  unsigned char *chosen;
  (void)ssl;
  if (SSL_select_next_proto(&chosen, out_size, context->alpn, context->alpn_size, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

/* context:alpn(list): protocols, the one that is liked best first. */
static int context_alpn(lua_State *L) {
  tls_context *context = tls_context_check(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_Integer n = luaL_len(L, 2);
  luaL_Buffer buffer;
  luaL_argcheck(L, n > 0, 2, "a list of protocols must not be empty");
  luaL_buffinit(L, &buffer);
  for (lua_Integer i = 1; i <= n; i++) {
    size_t size = 0;
    lua_geti(L, 2, i);
    const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
    if (name == NULL || size == 0 || size > 255)
      return luaL_argerror(L, 2, "a protocol must be a string of 1 to 255 bytes");
    lua_pop(L, 1); /* the list holds it */
    luaL_addchar(&buffer, (char)size);
    luaL_addlstring(&buffer, name, size);
  }
  luaL_pushresult(&buffer);
  size_t size;
  const char *wire = lua_tolstring(L, -1, &size);
  luaL_argcheck(L, size <= 65535, 2, "the list of protocols is too long");
  unsigned char *copy = malloc(size);
  if (copy == NULL)
    return luaL_error(L, "not enough memory");
  memcpy(copy, wire, size);
  free(context->alpn);
  context->alpn = copy;
  context->alpn_size = (unsigned)size;
  SSL_CTX_set_alpn_select_cb(context->ctx, select_protocol, context);
  if (SSL_CTX_set_alpn_protos(context->ctx, copy, context->alpn_size) != 0) /* 0 is success here */
    return luaL_error(L, "not enough memory");
  return 0;
}

/* ---- making and freeing ---- */

static int context_gc(lua_State *L) {
  tls_context *context = luaL_checkudata(L, 1, CONTEXT);
  for (int i = 0; i < SESSIONS; i++) {
    SSL_SESSION_free(context->sessions[i].session);
    context->sessions[i].session = NULL;
  }
  SSL_CTX_free(context->ctx); /* engines that live on have references */
  context->ctx = NULL;
  free(context->alpn);
  context->alpn = NULL;
  context->alpn_size = 0;
  tls_context_free_names(context);
  return 0;
}

/* context(): a context that trusts nobody and verifies nothing yet. */
static int new_context(lua_State *L) {
  static const unsigned char id[] = "agather";
  tls_context *context = lua_newuserdatauv(L, sizeof *context, 1);
  memset(context, 0, sizeof *context);
  luaL_setmetatable(L, CONTEXT);
  tls_clear_errors();
  context->ctx = SSL_CTX_new(TLS_method());
  if (context->ctx == NULL) {
    tls_failure failure = {"", ""};
    tls_failure_take(&failure, "TLS cannot be used");
    return tls_failed(L, &failure);
  }
  SSL_CTX_set_app_data(context->ctx, context);
  SSL_CTX_set_min_proto_version(context->ctx, TLS1_2_VERSION);
  SSL_CTX_set_options(context->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context->ctx,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_id_context(context->ctx, id, sizeof id - 1);
  /* Servers need no cache, for their tickets hold all; clients have the one of this file. */
  SSL_CTX_set_session_cache_mode(context->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context->ctx, on_new_session);
  tls_context_watch_names(context);
  return 1;
}

void tls_open_context(lua_State *L) {
  static const luaL_Reg methods[] = {{"use_certificate", context_use_certificate},
                                     {"trust", context_trust},
                                     {"trust_path", context_trust_path},
                                     {"trust_system", context_trust_system},
                                     {"verify", context_verify},
                                     {"verify_client", context_verify_client},
                                     {"no_sessions", context_no_sessions},
                                     {"versions", context_versions},
                                     {"alpn", context_alpn},
                                     {"add_name", tls_context_add_name},
                                     {NULL, NULL}};
  luaL_newmetatable(L, CONTEXT);
  lua_pushcfunction(L, context_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, new_context);
  lua_setfield(L, -2, "context");
}
