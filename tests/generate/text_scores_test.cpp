// F1 of words and ROUGE-L, against values worked by hand from the rules of LongBench's metrics.py and of rouge 1.0.1.
#include "lib/generate/text_scores.h"

#include <doctest/doctest.h>

using namespace ratplus::generate;
using doctest::Approx;

TEST_CASE("f1 of words: lower case, no punctuation, no articles, each word as often as in both") {
  CHECK(qa_f1("Paris", "paris.") == 1);
  CHECK(qa_f1("The cat, a Cat!", "cat") == Approx(2.0 / 3));  // cat cat: P = 1/2, R = 1
  CHECK(qa_f1("cat cat dog", "cat cat cat") == Approx(2.0 / 3));
  CHECK(qa_f1("It was \u00c9mile's dog", "the DOG of \u00e9mile's") == Approx(4.0 / 7));  // P = 2/4, R = 2/3
  CHECK(qa_f1("another theory", "another") == Approx(2.0 / 3));  // no articles in words
  CHECK(qa_f1("the\u2014end", "\u2014end") == 1);                // a dash ends a word, and stays
  CHECK(qa_f1("caf\u00e9a b", "b") == Approx(2.0 / 3));          // a letter does not
  CHECK(qa_f1("x\u00a0y\n z", "x y z") == 1);                    // any white space
  CHECK(qa_f1("well-known", "well known") == 0);                 // "wellknown"
  CHECK(qa_f1("\u0416\u0401\u03a9\u017d", "\u0436\u0451\u03c9\u017e") == 1);
  CHECK(qa_f1("", "Paris") == 0);
  CHECK(qa_f1("the", "the") == 0);
  CHECK(qa_f1("\xff", "a b") == 0);
}

TEST_CASE("ROUGE-L: the union of common subsequences of sentences, different words counted once") {
  CHECK(rouge_l("the cat sat", "the cat ran fast") == Approx(4.0 / 7));  // P = 2/3, R = 2/4
  // The example of rouge's authors: w1 w2 and w1 w3 w5, so w1 w2 w3 w5; P = 4/8, R = 4/5.
  CHECK(rouge_l("w1 w2 w6 w7 w8.w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5") == Approx(0.8 / 1.3));
  // By sentences of the reference too: a b and c d; all of both.
  CHECK(rouge_l("c d. a b.", "a b. c d.") == Approx(1));
  CHECK(rouge_l("a a b", "a b b") == Approx(1));
  CHECK(rouge_l("b a", "a b") == Approx(0.5));  // one of the two alone
  CHECK(rouge_l("A", "a") == 0);
  CHECK(rouge_l("a\n b", "a b") == Approx(1));
  CHECK(rouge_l("", "a") == 0);
  CHECK(rouge_l("...", "a") == 0);
  CHECK(rouge_l("a", "a") < 1);  // by the 1e-8 of its denominator
  CHECK(rouge_l("a", "a") == Approx(2 / (2 + 1e-8)).epsilon(1e-14));
}
