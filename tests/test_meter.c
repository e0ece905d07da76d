/* What is said while a model judges: share, time left, tokens, cost; on a terminal one line that is
 * written over, else whole lines, and neither too often. */
#include "host/judge/meter.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/files.h"

static void test_text(void) {
    const Meter free_of_charge = {0}, paid = {.price_in = 2.5, .price_out = 10};
    const Metered none = {.wanted = 300}, some = {120, 300, 412000, 21000};
    char text[METER_ROOM];
    EXPECT(strcmp(meter_text(text, &free_of_charge, &none, 5),
                  "judged 0 of 300, 0 %, ? left, 0 tokens in, 0 out") == 0,
           "%s", text);
    EXPECT(
        strcmp(meter_text(text, &paid, &some, 100),
               "judged 120 of 300, 40 %, 2m 30s left, 412,000 tokens in, 21,000 out, 1.24 USD") ==
            0,
        "%s", text);
    EXPECT(fabs(meter_cost(&paid, &some) - 1.24) < 1e-12 && meter_cost(&free_of_charge, &some) == 0,
           "%g USD", meter_cost(&paid, &some));
}

/* What `often` states leave on stderr, which is `to`. */
static void show(int to, bool quiet, int often) {
    int before = dup(STDERR_FILENO);
    Meter m;
    dup2(to, STDERR_FILENO);
    meter_begin(&m, 0, 0, quiet);
    for (int i = 0; i < often; i++) meter_at(&m, &(Metered){(size_t)i, 100, 10, 1});
    usleep(120000);
    meter_at(&m, &(Metered){50, 100, 10, 1});
    meter_end(&m, &(Metered){100, 100, 10, 1});
    dup2(before, STDERR_FILENO), close(before);
}

static int count(const char *text, const char *of) {
    int n = 0;
    for (; (text = strstr(text, of)); text++) n++;
    return n;
}

static void test_lines(bool quiet) {
    char text[4096] = "";
    int fd = open(test_path("said"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    show(fd, quiet, 1000);
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    EXPECT(n >= 0 && count(text, "judged") == (quiet ? 0 : 1), "in a tenth of a second: %s", text);
    EXPECT(quiet || strncmp(text, "judged 100 of 100, 100 %, 0 s left", 34) == 0, "%s", text);
    EXPECT(!strchr(text, '\r'), "%s", text);
}

static void test_terminal(void) {
    char text[4096] = "";
    int own = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(own >= 0 && grantpt(own) == 0 && unlockpt(own) == 0, "no terminal");
    int terminal = open(ptsname(own), O_RDWR | O_NOCTTY);
    CHECK(terminal >= 0, "no terminal");
    show(terminal, false, 1000);
    ssize_t n = read(own, text, sizeof text - 1);
    close(terminal), close(own);
    EXPECT(n > 0 && count(text, "\rjudged") == 2 && count(text, "\033[K") == 2, "%zd: %s", n, text);
    EXPECT(strstr(text, "judged 50 of 100") && strstr(text, "judged 100 of 100") &&
               count(text, "\n") == 1,
           "%s", text);
}

int main(void) {
    test_text();
    test_lines(false);
    test_lines(true);
    test_terminal();
    return test_done("meter");
}
