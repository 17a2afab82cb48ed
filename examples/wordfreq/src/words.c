#include "wordfreq.h"

#include <ctype.h>

size_t next_word(FILE *input, char word[WORD_LIMIT])
{
    size_t length = 0;
    int c;
    while ((c = getc(input)) != EOF) {
        if (isalpha(c)) {
            if (length < WORD_LIMIT - 1)
                word[length++] = (char)tolower(c);
        } else if (length > 0) {
            break;
        }
    }
    word[length] = '\0';
    return length;
}
