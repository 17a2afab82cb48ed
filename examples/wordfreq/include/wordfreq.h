#ifndef WORDFREQ_H
#define WORDFREQ_H

#include <stddef.h>
#include <stdio.h>

#define WORD_LIMIT 64

struct entry {
    char word[WORD_LIMIT];
    unsigned long count;
};

struct table {
    struct entry *entries;
    size_t used;
    size_t capacity;
};

/* Returns 0, or -1 when memory runs out. */
int table_count(struct table *table, const char *word);
/* Sorts by count (falling), then by word. */
void table_sort(struct table *table);
void table_free(struct table *table);

/* Reads the next word in lower case; returns its length, 0 at the end of input. */
size_t next_word(FILE *input, char word[WORD_LIMIT]);

#endif
