/* events.c - records of scalars, put together by hand: protobuf's varints and tags. */
#include "host/stage/events.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/buf.h"

struct Events {
    FILE *file;
    char *path;
    uint32_t crc[256]; /* CRC32C of each byte */
};

/* Castagnoli's polynomial, reflected. */
static void make_crc(uint32_t table[256]) {
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
    }
}

static uint32_t masked_crc(const Events *e, const char *bytes, size_t n) {
    uint32_t c = UINT32_MAX;
    for (size_t i = 0; i < n; i++) c = e->crc[(c ^ (uint8_t)bytes[i]) & 255] ^ c >> 8;
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* n bytes of x, the lowest first. */
static void put_bytes(Buf *b, uint64_t x, int n) {
    for (int i = 0; i < n; i++) buf_byte(b, (char)(x >> 8 * i));
}

static void put_varint(Buf *b, uint64_t x) {
    for (; x > 127; x >>= 7) buf_byte(b, (char)(x | 128));
    buf_byte(b, (char)x);
}

enum Wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_tag(Buf *b, int field, enum Wire wire) {
    put_varint(b, (uint64_t)field << 3 | wire);
}

static void put_text(Buf *b, int field, const char *text, size_t n) {
    put_tag(b, field, BYTES);
    put_varint(b, n);
    buf_add(b, text, n);
}

static void put_double(Buf *b, int field, double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_tag(b, field, FIXED64);
    put_bytes(b, bits, 8);
}

static void put_float(Buf *b, int field, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_tag(b, field, FIXED32);
    put_bytes(b, bits, 4);
}

/* A whole record around the bytes of an Event. */
static bool put_record(Events *e, const Buf *event, Err *err) {
    Buf b = {0};
    put_bytes(&b, event->n, 8);
    put_bytes(&b, masked_crc(e, b.p, 8), 4);
    buf_add(&b, event->p, event->n);
    put_bytes(&b, masked_crc(e, event->p, event->n), 4);
    bool ok = fwrite(b.p, 1, b.n, e->file) == b.n && fflush(e->file) == 0;
    buf_free(&b);
    return ok || files_failed(err, e->path, "write");
}

bool events_open(Events **to, const char *path, double seconds, Err *err) {
    static const char version[] = "brain.Event:2";
    Events *e = mem_array(1, sizeof *e);
    Buf event = {0};
    *to = e;
    e->path = mem_string(path);
    make_crc(e->crc);
    e->file = fopen(path, "wb");
    bool ok = e->file || files_failed(err, path, "write");
    put_double(&event, 1, seconds);
    put_text(&event, 3, version, sizeof version - 1);
    ok = ok && put_record(e, &event, err);
    buf_free(&event);
    if (ok) return true;
    Err ignored;
    events_close(e, &ignored);
    *to = NULL;
    return false;
}

static void put_value(Buf *summary, const char *name, double x) {
    Buf value = {0};
    char tag[96];
    bool eval = strncmp(name, "eval_", 5) == 0;
    int n = snprintf(tag, sizeof tag, "%s/%s", eval ? "eval" : "train", eval ? name + 5 : name);
    put_text(&value, 1, tag, (size_t)n < sizeof tag ? (size_t)n : sizeof tag - 1);
    put_float(&value, 2, (float)x);
    put_text(summary, 1, value.p, value.n);
    buf_free(&value);
}

bool events_line(Events *e, const json_t *line, double seconds, Err *err) {
    const json_t *step = json_object_get(line, "step");
    const char *name;
    json_t *value;
    Buf event = {0}, summary = {0};
    if (!json_is_integer(step)) return true;
    json_object_foreach ((json_t *)line, name, value)
        if (json_is_number(value) && strcmp(name, "step") != 0)
            put_value(&summary, name, json_number_value(value));
    put_double(&event, 1, seconds);
    put_tag(&event, 2, VARINT);
    put_varint(&event, (uint64_t)json_integer_value(step));
    put_text(&event, 5, summary.p ? summary.p : "", summary.n);
    bool ok = put_record(e, &event, err);
    buf_free(&event), buf_free(&summary);
    return ok;
}

bool events_close(Events *e, Err *err) {
    if (!e) return true;
    bool ok = !e->file || fclose(e->file) == 0 || files_failed(err, e->path, "write");
    free(e->path);
    free(e);
    return ok;
}
