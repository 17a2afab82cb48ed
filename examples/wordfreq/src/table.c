#include "wordfreq.h"

#include <stdlib.h>
#include <string.h>

static unsigned long hash(const char *word)
{
    unsigned long value = 5381;
    for (; *word != '\0'; word++)
        value = value * 33 + (unsigned char)*word;
    return value;
}

static struct entry *slot(struct entry *entries, size_t capacity, const char *word)
{
    size_t at = hash(word) % capacity;
    while (entries[at].count != 0 && strcmp(entries[at].word, word) != 0)
        at = (at + 1) % capacity;
    return &entries[at];
}

static int grow(struct table *table)
{
    size_t capacity = table->capacity == 0 ? 256 : table->capacity * 2;
    struct entry *entries = calloc(capacity, sizeof *entries);
    if (entries == NULL)
        return -1;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->entries[i].count != 0)
            *slot(entries, capacity, table->entries[i].word) = table->entries[i];
    free(table->entries);
    table->entries = entries;
    table->capacity = capacity;
    return 0;
}

int table_count(struct table *table, const char *word)
{
    if (table->used * 2 >= table->capacity && grow(table) != 0)
        return -1;
    struct entry *entry = slot(table->entries, table->capacity, word);
    if (entry->count == 0) {
        strcpy(entry->word, word);
        table->used++;
    }
    entry->count++;
    return 0;
}

static int by_count(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->word, b->word);
}

void table_sort(struct table *table)
{
    size_t kept = 0;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->entries[i].count != 0)
            table->entries[kept++] = table->entries[i];
    if (kept > 0)
        qsort(table->entries, kept, sizeof *table->entries, by_count);
}

void table_free(struct table *table)
{
    free(table->entries);
    *table = (struct table){0};
}
