/* malloc and its family, for all of the process: they count what each library asks for, fail on demand, and know which
** blocks are not given back. A program that is linked with faults.c has them in place of the C library's. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stddef.h>

/* Whose code asks: agather's modules, libuv, what else is loaded (OpenSSL, libcurl, jansson, the C library), and those
** whose requests neither fail nor count: Lua and the program itself. */
enum { FAULTS_AGATHER = 1, FAULTS_LIBUV = 2, FAULTS_LIBRARIES = 4 };

/* realloc, or with size 0 free, that none of this concerns. */
void *faults_plain(void *block, size_t size);

/* Learns which libraries are loaded; what comes later is as the program itself. */
void faults_look(void);

/* From now on the requests of [who] are counted, and the [first]-th fails, with [all] those after it as well; 0: none
** does. */
void faults_arm(int who, long first, bool all);

/* From now on none fails; returns how many were counted. */
long faults_disarm(void);

/* Blocks of [who] made from now on, and not given back yet, are told by faults_left. */
void faults_mark(void);

/* How many they are; prints to stdout, with [text] before it, where they were made. */
int faults_left(int who, const char *text);

#endif
