/* What a certificate says, as text and as a table. */
#include "tls/tls.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* One line: control characters are escaped, other letters stand as UTF-8. */
static const unsigned long name_flags =
    (ASN1_STRFLGS_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) | XN_FLAG_SEP_CPLUS_SPC | XN_FLAG_FN_SN;

static void name_text(const X509_NAME *name, char *text, size_t size) {
  text[0] = '\0';
  BIO *bio = BIO_new(BIO_s_mem());
  if (bio != NULL && X509_NAME_print_ex(bio, name, 0, name_flags) >= 0) {
    int n = BIO_read(bio, text, (int)size - 1);
    text[n > 0 ? n : 0] = '\0';
  }
  BIO_free(bio);
}

void tls_subject(X509 *certificate, char *text, size_t size) {
  name_text(X509_get_subject_name(certificate), text, size);
}

/* Writes one name; false for kinds that name no host, mailbox or resource. A byte that is not printable shows as '?',
** so that no certificate can pretend to another name or break a line of a log. */
static bool general_name(const GENERAL_NAME *name, const char **kind, char *text, size_t size) {
  int type;
  const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
  if (type == GEN_IPADD) {
    int length = ASN1_STRING_length(value);
    *kind = "IP";
    return (length == 4 || length == 16) &&
           inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(value), text, (socklen_t)size) != NULL;
  }
  if (type != GEN_DNS && type != GEN_EMAIL && type != GEN_URI)
    return false;
  *kind = type == GEN_DNS ? "DNS" : type == GEN_EMAIL ? "email" : "URI";
  const unsigned char *data = ASN1_STRING_get0_data(value);
  size_t n = (size_t)ASN1_STRING_length(value);
  if (n >= size)
    n = size - 1;
  for (size_t i = 0; i < n; i++)
    text[i] = data[i] > 0x20 && data[i] < 0x7F ? (char)data[i] : '?';
  text[n] = '\0';
  return true;
}

void tls_names(X509 *certificate, char *text, size_t size) {
  GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
  size_t used = 0;
  text[0] = '\0';
  for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
    char one[256];
    const char *kind;
    if (!general_name(sk_GENERAL_NAME_value(names, i), &kind, one, sizeof one) ||
        (strcmp(kind, "DNS") != 0 && strcmp(kind, "IP") != 0))
      continue;
    int n = snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", one);
    if (n < 0 || (size_t)n >= size - used) { /* cut: say so */
      if (size > 4)
        memcpy(text + size - 4, "...", 4);
      break;
    }
    used += (size_t)n;
  }
  GENERAL_NAMES_free(names);
}

static void push_name(lua_State *L, const X509_NAME *name, const char *field) {
  char text[1024];
  name_text(name, text, sizeof text);
  lua_pushstring(L, text);
  lua_setfield(L, -2, field);
}

static void push_time(lua_State *L, const ASN1_TIME *when, const char *field) {
  struct tm tm;
  if (ASN1_TIME_to_tm(when, &tm) != 1)
    return;
  lua_pushinteger(L, (lua_Integer)timegm(&tm));
  lua_setfield(L, -2, field);
}

static void push_hex(lua_State *L, const unsigned char *data, size_t n, const char *field) {
  static const char digits[] = "0123456789abcdef";
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (size_t i = 0; i < n; i++) {
    luaL_addchar(&buffer, digits[data[i] >> 4]);
    luaL_addchar(&buffer, digits[data[i] & 15]);
  }
  luaL_pushresult(&buffer);
  lua_setfield(L, -2, field);
}

/* The list of names; called protected, because what is decoded must be freed. Stack: light userdata. */
static int list_names(lua_State *L) {
  GENERAL_NAMES *names = lua_touserdata(L, 1);
  lua_newtable(L);
  for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
    char one[1024];
    const char *kind;
    if (!general_name(sk_GENERAL_NAME_value(names, i), &kind, one, sizeof one))
      continue;
    lua_pushfstring(L, "%s:%s", kind, one);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
  return 1;
}

static void push_names(lua_State *L, X509 *certificate) {
  luaL_checkstack(L, 4, NULL);
  GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
  lua_pushcfunction(L, list_names);
  lua_pushlightuserdata(L, names);
  int status = lua_pcall(L, 1, 1, 0);
  GENERAL_NAMES_free(names);
  if (status != LUA_OK)
    lua_error(L);
  lua_setfield(L, -2, "san");
}

static void push_pem(lua_State *L, X509 *certificate) {
  int der = i2d_X509(certificate, NULL);
  size_t bound = (size_t)(der > 0 ? der : 0) * 3 / 2 + 128;
  luaL_Buffer buffer;
  char *text = luaL_buffinitsize(L, &buffer, bound);
  size_t n = 0;
  BIO *bio = BIO_new(BIO_s_mem());
  if (bio != NULL && PEM_write_bio_X509(bio, certificate) == 1) {
    int got = BIO_read(bio, text, (int)bound);
    n = got > 0 ? (size_t)got : 0;
  }
  BIO_free(bio);
  luaL_pushresultsize(&buffer, n);
  lua_setfield(L, -2, "pem");
}

void tls_push_certificate(lua_State *L, X509 *certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  lua_createtable(L, 0, 8);
  push_name(L, X509_get_subject_name(certificate), "subject");
  push_name(L, X509_get_issuer_name(certificate), "issuer");
  push_names(L, certificate);
  push_time(L, X509_get0_notBefore(certificate), "not_before");
  push_time(L, X509_get0_notAfter(certificate), "not_after");
  const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
  push_hex(L, ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial), "serial");
  if (X509_digest(certificate, EVP_sha256(), digest, &size) == 1)
    push_hex(L, digest, size, "sha256");
  push_pem(L, certificate);
  tls_clear_errors();
}
