/* OpenSSL's errors in words, with a code that scripts can compare.
** OpenSSL keeps a queue of errors per thread, not per connection: it is emptied before and after each call. */
#include "tls/tls.h"

#include <ctype.h>
#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void tls_clear_errors(void) {
  if (ERR_peek_error() != 0) /* clearing an empty queue is not free */
    ERR_clear_error();
}

void tls_failure_set(tls_failure *failure, const char *code, const char *format, ...) {
  va_list args;
  snprintf(failure->code, sizeof failure->code, "%s", code);
  va_start(args, format);
  /* clang-tidy 14 forgets va_start where it checks several files. */
  vsnprintf(failure->text, sizeof failure->text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized) */
  va_end(args);
}

int tls_failed(lua_State *L, const tls_failure *failure) {
  if (strcmp(failure->code, "ENOMEM") == 0)
    return luaL_error(L, "not enough memory");
  lua_pushnil(L);
  lua_pushstring(L, failure->code);
  lua_pushstring(L, failure->text);
  return 3;
}

/* "tlsv1 alert protocol version" becomes TLSV1_ALERT_PROTOCOL_VERSION. */
static void code_of(const char *reason, char *code, size_t size) {
  size_t n = 0;
  for (; *reason != '\0' && n + 1 < size; reason++)
    if (isalnum((unsigned char)*reason))
      code[n++] = (char)toupper((unsigned char)*reason);
    else if (n > 0 && code[n - 1] != '_')
      code[n++] = '_';
  while (n > 0 && code[n - 1] == '_')
    n--;
  code[n] = '\0';
}

/* What the reasons that a user meets mean; OpenSSL's words where there are none here. */
static const char *text_of(int reason) {
  switch (reason) {
  case SSL_R_WRONG_VERSION_NUMBER:
    return "the peer does not speak TLS, or a version of it that is refused";
  case SSL_R_HTTP_REQUEST:
    return "the peer sent an HTTP request in clear text";
  case SSL_R_UNSUPPORTED_PROTOCOL:
    return "the peer speaks only versions of TLS that are refused";
  case SSL_R_NO_APPLICATION_PROTOCOL:
    return "none of the protocols that the peer offers (ALPN) is spoken here";
  case SSL_R_NO_SHARED_CIPHER:
    return "no cipher that both sides accept";
  case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    return "the peer sent no certificate";
  case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
    return "what came was altered on its way (bad record MAC)";
  default:
    return NULL;
  }
}

/* [words] are OpenSSL's, such as "sslv3 alert handshake failure", or NULL: a peer may send any number. */
static void from_alert(tls_failure *failure, int alert, const char *words) {
  const char *name = SSL_alert_desc_string_long(alert);
  const char *after = words != NULL ? strstr(words, " alert ") : NULL;
  if (words == NULL) {
    tls_failure_set(failure, "UNKNOWN_ALERT", "the peer refused with the alert: number %d", alert);
    return;
  }
  if (strcmp(name, "unknown") == 0 && after != NULL) /* its list lacks the alerts of TLS 1.3 */
    name = after + strlen(" alert ");
  tls_failure_set(failure, "", "the peer refused with the alert: %s", name);
  code_of(words, failure->code, sizeof failure->code);
}

/* Fills [failure] where there are better words than OpenSSL's, which may be NULL. */
static bool from_ssl(tls_failure *failure, int reason, const char *words) {
  if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    tls_failure_set(failure, "UNEXPECTED_EOF", "the stream was cut: it ended without the peer's close_notify");
    return true;
  }
  if (reason >= SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255) {
    from_alert(failure, reason - SSL_AD_REASON_OFFSET, words);
    return true;
  }
  if (text_of(reason) == NULL || words == NULL)
    return false;
  tls_failure_set(failure, "", "%s", text_of(reason));
  code_of(words, failure->code, sizeof failure->code);
  return true;
}

void tls_failure_take(tls_failure *failure, const char *what) {
  unsigned long error = ERR_get_error();
  const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
  bool memory = false;
  for (unsigned long next = error; next != 0; next = ERR_get_error())
    memory = memory || ERR_GET_REASON(next) == ERR_R_MALLOC_FAILURE;
  if (memory) {
    tls_failure_set(failure, "ENOMEM", "not enough memory");
  } else if (ERR_GET_LIB(error) == ERR_LIB_SSL && from_ssl(failure, ERR_GET_REASON(error), reason)) {
    return;
  } else if (reason == NULL) {
    tls_failure_set(failure, "PROTOCOL_ERROR", "%s%sOpenSSL gives no reason", what ? what : "", what ? ": " : "");
  } else {
    tls_failure_set(failure, "", "%s%s%s", what ? what : "", what ? ": " : "", reason);
    code_of(reason, failure->code, sizeof failure->code);
  }
}

/* The name of the constant, without X509_V_ERR_, for what a script may want to tell from the rest. */
static const char *verify_code(long error) {
  static const struct {
    long error;
    const char *code;
  } codes[] = {
      {X509_V_ERR_CERT_HAS_EXPIRED, "CERT_HAS_EXPIRED"},
      {X509_V_ERR_CERT_NOT_YET_VALID, "CERT_NOT_YET_VALID"},
      {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, "DEPTH_ZERO_SELF_SIGNED_CERT"},
      {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, "SELF_SIGNED_CERT_IN_CHAIN"},
      {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, "UNABLE_TO_GET_ISSUER_CERT"},
      {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"},
      {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"},
      {X509_V_ERR_CERT_SIGNATURE_FAILURE, "CERT_SIGNATURE_FAILURE"},
      {X509_V_ERR_CERT_REVOKED, "CERT_REVOKED"},
      {X509_V_ERR_INVALID_CA, "INVALID_CA"},
      {X509_V_ERR_INVALID_PURPOSE, "INVALID_PURPOSE"},
      {X509_V_ERR_CERT_CHAIN_TOO_LONG, "CERT_CHAIN_TOO_LONG"},
      {X509_V_ERR_PATH_LENGTH_EXCEEDED, "PATH_LENGTH_EXCEEDED"},
      {X509_V_ERR_EE_KEY_TOO_SMALL, "EE_KEY_TOO_SMALL"},
      {X509_V_ERR_CA_KEY_TOO_SMALL, "CA_KEY_TOO_SMALL"},
      {X509_V_ERR_CA_MD_TOO_WEAK, "CA_MD_TOO_WEAK"},
  };
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (codes[i].error == error)
      return codes[i].code;
  return "CERTIFICATE_VERIFY_FAILED";
}

void tls_failure_verify(tls_failure *failure, long error, X509 *certificate, const char *name) {
  char subject[256] = "", names[256] = "";
  if (certificate != NULL)
    tls_subject(certificate, subject, sizeof subject);
  if (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
    const char *kind = error == X509_V_ERR_HOSTNAME_MISMATCH ? "hostname" : "IP address";
    const char *code = error == X509_V_ERR_HOSTNAME_MISMATCH ? "HOSTNAME_MISMATCH" : "IP_ADDRESS_MISMATCH";
    if (certificate != NULL)
      tls_names(certificate, names, sizeof names);
    if (names[0] != '\0')
      tls_failure_set(failure, code, "%s mismatch: certificate is for %s, not %s", kind, names, name ? name : "?");
    else
      tls_failure_set(failure, code, "%s mismatch: certificate names no host (%s has no subjectAltName), not %s", kind,
                      subject, name ? name : "?");
  } else if (error == X509_V_ERR_OUT_OF_MEM) {
    tls_failure_set(failure, "ENOMEM", "not enough memory");
  } else {
    tls_failure_set(failure, verify_code(error), "%s%s%s", X509_verify_cert_error_string(error), subject[0] ? ": " : "",
                    subject);
  }
  tls_clear_errors();
}
