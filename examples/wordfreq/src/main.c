#include "wordfreq.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    unsigned long most = argc > 1 ? strtoul(argv[1], NULL, 10) : 10;
    struct table table = {0};
    char word[WORD_LIMIT];

    while (next_word(stdin, word) > 0) {
        if (table_count(&table, word) != 0) {
            fputs("wordfreq: out of memory\n", stderr);
            return 1;
        }
    }
    table_sort(&table);
    for (size_t i = 0; i < table.used && i < most; i++)
        printf("%7lu %s\n", table.entries[i].count, table.entries[i].word);
    table_free(&table);
    return 0;
}
