/* What the files of agather.ssl share: contexts, engines, and how OpenSSL's errors become words. Stands on agather.h
** for nothing but the version, on OpenSSL 3.0 for the rest; knows no loop and does no input or output.
**
** Nothing here raises for what a peer or a file did: such functions give nil, a code ("CERT_HAS_EXPIRED") and a text,
** and lua/agather/tls.lua makes a TLSError of them, with operation and address. Only wrong arguments and a lack of
** memory raise. All calls are made by the thread that owns the Lua state. */
#ifndef AG_TLS_H
#define AG_TLS_H

#include <lauxlib.h>
#include <openssl/ssl.h>

#include "agather.h"

#define CONTEXT "agather.tls.Context"
#define ENGINE "agather.tls.Engine"

enum { SESSIONS = 16, NAME_MAX_BYTES = 253 };

/* A session to go on with, and for which server it was made. [name] holds no session while it is empty. */
typedef struct tls_session {
  char name[NAME_MAX_BYTES + 1];
  SSL_SESSION *session;
} tls_session;

typedef struct tls_context tls_context;

/* A context for clients that ask for some name. */
typedef struct tls_name {
  struct tls_name *next;
  tls_context *context; /* the user value of the one that lists it keeps it */
  char pattern[];       /* "a.example" or "*.a.example" */
} tls_name;

/* Settings that many connections share, of clients and servers. A userdata; engines anchor it. */
struct tls_context {
  SSL_CTX *ctx;        /* NULL once it is freed */
  bool verify;         /* a client verifies servers */
  int verify_client;   /* a server's SSL_VERIFY_... of clients */
  unsigned char *alpn; /* names, each after its length */
  unsigned alpn_size;
  tls_session sessions[SESSIONS]; /* a client's, the latest per server */
  unsigned next_session;          /* the place that the next server takes */
  tls_name *names;                /* a server's */
};

/* What failed: a code such as "CERT_HAS_EXPIRED", and a text. Nothing failed while the code is empty. */
typedef struct tls_failure {
  char code[64];
  char text[512];
} tls_failure;

/* Drops what the thread's error queue holds: before each call, so that no engine sees another's errors. */
void tls_clear_errors(void);
/* Fills [failure] from the oldest error of the thread's queue, which it empties; [what] stands before the text, or is
** NULL. Says so when memory was the cause: tls_failed then raises. */
void tls_failure_take(tls_failure *failure, const char *what);
/* Sets code and text. */
void tls_failure_set(tls_failure *failure, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Pushes nil, code, text. Raises "not enough memory" where that is the code. [-0, +3, e] */
int tls_failed(lua_State *L, const tls_failure *failure);
/* Says in [failure] why [certificate] (may be NULL) was not accepted: [error] is an X509_V_ERR; [name] the host that
** was asked for, or NULL. */
void tls_failure_verify(tls_failure *failure, long error, X509 *certificate, const char *name);

/* Pushes a table that describes [certificate]. [-0, +1, e] */
void tls_push_certificate(lua_State *L, X509 *certificate);
/* Writes the subject as one line, cut to [size] bytes. */
void tls_subject(X509 *certificate, char *text, size_t size);
/* Writes the host names and addresses that [certificate] is for, with commas between, cut to [size] bytes; an empty
** text where it has none. */
void tls_names(X509 *certificate, char *text, size_t size);

/* The context at [index]; raises an argument error. */
tls_context *tls_context_check(lua_State *L, int index);
/* The latest session with the server [name], for the caller to free; NULL where there is none. */
SSL_SESSION *tls_context_take_session(tls_context *context, const char *name);
/* Keeps [session], which it owns from now on, for the next connection to the server [name]. */
void tls_context_keep_session(tls_context *context, const char *name, SSL_SESSION *session);

/* context:add_name(pattern, other), a method of contexts. */
int tls_context_add_name(lua_State *L);
/* Lets servers look at the names that clients ask for; without, they forget the name when they resume a session. */
void tls_context_watch_names(tls_context *context);
void tls_context_free_names(tls_context *context);

/* Lets the engine of [ssl] verify its peer or not: [mode] is an SSL_VERIFY_... */
void tls_engine_verify(SSL *ssl, int mode);
/* The name of the server that [ssl]'s engine speaks to, or NULL. */
const char *tls_engine_server_name(const SSL *ssl);

/* Each adds its functions to the module table on top of the stack. */
void tls_open_context(lua_State *L);
void tls_open_engine(lua_State *L);

#endif
