/* main.c - the program: finds the command, runs it, prints the one line of an error. */
#include <stdio.h>

#include "host/base/err.h"

int main(int argc, char **argv) {
    (void)argv;
    fprintf(stderr, "sails: expected a command\n");
    return argc > 1 ? EXIT_USAGE : EXIT_DONE;
}
