/* endpoint.h - where a judge is, and with which key: checked before anything is sent.
 *
 * The key comes from the environment alone. It is held here and in the one header line that is made
 * of it; nothing else may keep, print or write it, and what servers say is looked through for it
 * (endpoint_scrub). It goes to an https:// address, or to this machine; to another host by http://
 * only where --judge-plain-http says so. */
#ifndef SAILS_ENDPOINT_H
#define SAILS_ENDPOINT_H

#include "data/base/err.h"
#include "host/cli/settings.h"
#include "host/judge/http.h"

typedef struct Endpoint {
    char *url;           /* with /chat/completions */
    char host[256];      /* with the port, as in the address: for messages */
    char *authorization; /* the header line; NULL: there is no key */
    size_t nkey;
    char *ca_file, *ca_folder;
    bool local; /* this machine */
} Endpoint;

/* From s->eval and the environment (the variable of --judge-key-env; SSL_CERT_FILE, SSL_CERT_DIR).
 * EXIT_USAGE for what is wrong with them. Another machine than this one needs a key, unless
 * --judge-key-env is empty. */
bool endpoint_open(Endpoint *e, const Settings *s, Err *err);
void endpoint_close(Endpoint *e); /* wipes the key; accepts a zeroed struct */

/* Overwrites every occurrence of the key in a text with '*'. Keys below eight bytes are no secrets
 * ("EMPTY", "none"), and would be found in words. */
void endpoint_scrub(const Endpoint *e, char *text);

/* Opens the plug-in's client for it. EXIT_USAGE: the plug-in is not there. */
bool endpoint_connect(const HttpPlugin **plugin, Http **http, const Endpoint *e, const Settings *s,
                      Err *err);

/* What the plug-in speaks HTTP by, "libcurl/7.88.1 ..". NULL: it is not there; then err is set. */
const char *endpoint_library(Err *err);

#endif
