//! Seeds that once broke a rule, by the rule that they broke.
