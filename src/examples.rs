//! The example tools and the example source tree, carried inside the program so that `dev` and `demo` work from any folder.

/// What `orien dev` and `orien init node` offer.
pub(crate) const PROVIDER_CONFIG: &str = include_str!("../examples/provider-config.json");

/// A C program with a Makefile and a check of its own: path in the workspace, contents.
pub(crate) const WORDFREQ: &[(&str, &str)] = &[
    ("Makefile", include_str!("../examples/wordfreq/Makefile")),
    ("include/wordfreq.h", include_str!("../examples/wordfreq/include/wordfreq.h")),
    ("src/main.c", include_str!("../examples/wordfreq/src/main.c")),
    ("src/table.c", include_str!("../examples/wordfreq/src/table.c")),
    ("src/words.c", include_str!("../examples/wordfreq/src/words.c")),
    ("data/sample.txt", include_str!("../examples/wordfreq/data/sample.txt")),
    ("data/expected.txt", WORDFREQ_EXPECTED),
];

/// What the built program prints for the sample.
pub(crate) const WORDFREQ_EXPECTED: &str = include_str!("../examples/wordfreq/data/expected.txt");
/// The sample.
pub(crate) const WORDFREQ_SAMPLE: &str = include_str!("../examples/wordfreq/data/sample.txt");
