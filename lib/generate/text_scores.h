// Scores of free text beside a reference, as LongBench's metrics.py computes them.
#pragma once

#include <string_view>

namespace ratplus::generate {

/// LongBench's qa_f1_score, from 0 to 1: 2 P R / (P + R) of the words that both texts have, each as often as it is in both; P is
/// their share of the answer's words, R of the reference's. Words are cut at white space after letters are made lower case (Latin,
/// Greek, Cyrillic), ASCII punctuation is removed, and so are "a", "an" and "the". 0 where no word is in both.
double qa_f1(std::string_view answer, std::string_view reference);

/// ROUGE-L from 0 to 1, as of Python's rouge 1.0.1 (summary level): sentences end at ".", words at white space. U is the set of words
/// in a longest common subsequence of any sentence of the reference with any of the answer; P = |U| over the answer's different
/// words, R over the reference's, and the score 2 P R / (P + R + 1e-8). 0 where a text holds nothing but points.
/// Python gives up, with 0, on sentences of about 1000 words; here they count.
double rouge_l(std::string_view answer, std::string_view reference);

}  // namespace ratplus::generate
