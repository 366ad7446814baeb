// Scores of answers, against values worked by hand.
#include "lib/generate/answer_scores.h"

#include <doctest/doctest.h>

#include <cmath>

#include "base/files/pending_file.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using namespace ratplus::generate;
using test::contains;
using test::message_of;

namespace {

/// reference, contained, whole.
std::vector<double> scores(const char* answer, const std::vector<std::string>& references) {
  const auto all = score_answer(answer, references);
  return {all.reference, all.contained, all.whole};
}

}  // namespace

TEST_CASE("scores of an answer: the papers', RULER's, and the whole") {
  CHECK(scores("1234567", {"1234567"}) == std::vector<double>{1, 1, 1});
  CHECK(scores(" 1234567\n", {"1234567"}) == std::vector<double>{1, 1, 1});
  CHECK(scores("is 1234567.", {"1234567"}) == std::vector<double>{0, 1, 0});
  CHECK(scores("12345678", {"1234567"}) == std::vector<double>{0, 1, 0});
  CHECK(scores("", {"1234567"}) == std::vector<double>{0, 0, 0});
  CHECK(scores("4, 3 ,2", {"2", "3", "5", "4"}) == std::vector<double>{0.75, 0.75, 0});
  CHECK(scores("2,3,5,4", {"2", "3", "5", "4"}) == std::vector<double>{1, 1, 1});
  CHECK(scores("2,3,4,5", {"2", "3", "5", "4"}) == std::vector<double>{1, 1, 0});
  CHECK(scores("2,3,5,4,9", {"2", "3", "5", "4"}) == std::vector<double>{1, 1, 0});
  // A part that comes twice counts once for its reference; case matters for the papers' alone.
  CHECK(scores("ab,ab", {"ab", "cd"}) == std::vector<double>{0.5, 0.5, 0});
  CHECK(scores("AB", {"ab"}) == std::vector<double>{0, 1, 0});
  CHECK(contains(message_of([] { score_answer("a", {}); }), "without references"));
}

TEST_CASE("f1 and ROUGE-L are those of the best reference, and LongBench's references are read") {
  const auto all = score_answer("the cat sat", {"a dog", "a cat sat down"});
  CHECK(all.f1 == doctest::Approx(0.8));           // cat sat: P = 2/2, R = 2/3
  CHECK(all.rouge_l == doctest::Approx(4.0 / 7));  // P = 2/3, R = 2/4
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "qasper.jsonl",
                   R"({"pred": "the cat sat", "answers": ["a dog", "a cat sat down"], "length": 9}
{"pred": "", "answers": ["x"], "length": 9}
)");
  const auto groups = group_scores(read_answers(scratch / "qasper.jsonl"), parse_grouping("task"));
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].name == "qasper");
  CHECK(groups[0].f1.mean == doctest::Approx(40));
  CHECK(groups[0].f1.error == doctest::Approx(40));
  CHECK(groups[0].rouge_l.mean == doctest::Approx(200.0 / 7));
}

TEST_CASE("means have the error of n - 1") {
  const auto mean =
      mean_score({1, 0, 0.5, 1});  // mean 0.625, squares 0.140625 * 2 + 0.390625 + 0.015625 = 0.6875
  CHECK(mean.mean == doctest::Approx(62.5));
  CHECK(mean.error == doctest::Approx(100 * std::sqrt(0.6875 / 3 / 4)));
  CHECK(std::isnan(mean_score({1}).error));  // one answer says nothing about others
  CHECK(mean_score({1, 1, 1}).error == 0);
}

TEST_CASE("answers of generate and of RULER's client are read, grouped and summed up") {
  const test::ScratchDirectory scratch;
  write_whole_file(
      scratch / "answers.jsonl",
      R"({"id": "a/0", "text": "7", "meta": {"task": "niah_multivalue", "outputs": ["7", "8"], "distance": 10, "keys": 4}}
{"id": "a/1", "text": "7,8", "meta": {"task": "niah_multivalue", "outputs": ["7", "8"], "distance": 300, "keys": 4}}
{"id": "b/0", "text": " ", "meta": {"task": "niah_multiquery", "outputs": ["9"], "distance": 20, "keys": 1}}
)");
  const auto answers = read_answers(scratch / "answers.jsonl");
  const auto tasks = group_scores(answers, {.field = "task", .edges = {}});
  REQUIRE(tasks.size() == 3);
  CHECK(tasks[0].name == "niah_multivalue");
  CHECK(tasks[0].answers == 2);
  CHECK(tasks[0].reference.mean == doctest::Approx(75));
  CHECK(tasks[0].reference.error == doctest::Approx(25));  // deviation 0.25 twice: sqrt(0.125 / 1 / 2)
  CHECK(tasks[0].whole.mean == doctest::Approx(50));
  CHECK(tasks[1].empty == 1);
  CHECK(tasks[2].name == "MQ/MV");
  CHECK(tasks[2].reference.mean == doctest::Approx(37.5));
  CHECK(std::isnan(tasks[2].reference.error));  // multiquery has one answer
  const auto ranges = group_scores(answers, parse_grouping("distance:20,100"));
  REQUIRE(ranges.size() == 3);
  CHECK(ranges[0].name == "below 20");
  CHECK(ranges[0].answers == 1);
  CHECK(ranges[1].name == "20 to 100");
  CHECK(ranges[2].name == "100 and more");
  CHECK(ranges[2].reference.mean == doctest::Approx(100));
  const auto keys = group_scores(answers, parse_grouping("keys"));
  REQUIRE(keys.size() == 2);
  CHECK(keys[0].name == "1");
  CHECK(keys[1].reference.mean == doctest::Approx(75));

  write_whole_file(scratch / "niah_single_1.jsonl",
                   R"({"index": 3, "pred": "5", "input": "...", "outputs": ["5"], "others": {}, "length": 90}
)");
  const auto of_ruler = read_answers(scratch / "niah_single_1.jsonl");
  REQUIRE(of_ruler.size() == 1);
  CHECK(of_ruler[0].task == "niah_single_1");
  CHECK(of_ruler[0].scores.whole == 1);
  CHECK(group_scores(of_ruler, parse_grouping("length"))[0].name == "90");

  CHECK(contains(message_of([&] { group_scores(answers, parse_grouping("depth")); }), "no number \"depth\""));
  for (const char* edges : {"9,3", "nan", "1,nan,2", "1,inf", "-inf,1"}) {
    CAPTURE(edges);
    CHECK(
        contains(message_of([&] { parse_grouping(std::string("distance:") + edges); }), "is no rising list"));
  }
  write_whole_file(scratch / "bad.jsonl", "{\"text\": \"a\", \"meta\": {}}\n");
  CHECK(contains(message_of([&] { read_answers(scratch / "bad.jsonl"); }),
                 "bad.jsonl, line 1: has no references"));
  write_whole_file(scratch / "bad.jsonl", "{\"answers\": []}\n");
  CHECK(contains(message_of([&] { read_answers(scratch / "bad.jsonl"); }), "line 1: has no text \"text\""));
}

TEST_CASE("an answer counts once within its task") {
  const test::ScratchDirectory scratch;
  const std::string of_a = R"({"id": 1, "text": "7", "meta": {"task": "a", "outputs": ["7"]}})";
  const std::string of_b = R"({"id": 1, "text": "7", "meta": {"task": "b", "outputs": ["7"]}})";
  write_whole_file(scratch / "two.jsonl", of_a + "\n" + of_b + "\n");
  CHECK(read_answers(scratch / "two.jsonl").size() == 2);
  write_whole_file(scratch / "again.jsonl", of_a + "\n" + of_b + "\n\n" + of_a + "\n");
  const auto message = message_of([&] { read_answers(scratch / "again.jsonl"); });
  CHECK(contains(message, "again.jsonl, line 4: answers id 1 of a again, as line 1"));
  const std::string of_ruler = R"({"index": 3, "pred": "5", "outputs": ["5"]})";
  write_whole_file(scratch / "niah.jsonl", of_ruler + "\n" + of_ruler + "\n");
  CHECK(
      contains(message_of([&] { read_answers(scratch / "niah.jsonl"); }), "line 2: answers index 3 of niah"));
  write_whole_file(scratch / "none.jsonl", R"({"pred": "5", "outputs": ["5"]}
{"pred": "5", "outputs": ["5"]}
)");
  CHECK(read_answers(scratch / "none.jsonl").size() == 2);
}
