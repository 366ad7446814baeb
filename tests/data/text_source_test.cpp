#include "data/text_source.h"

#include <doctest/doctest.h>

#include "data/utf8.h"
#include "tests/data/support.h"

using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;
using test::write_text;

namespace {

std::vector<std::string> read_all(const std::vector<std::filesystem::path>& inputs,
                                  const std::string& key = "text") {
  TextSource source(list_text_files(inputs));
  std::vector<std::string> texts;
  for (RawDocument raw; source.next(raw);) texts.push_back(parse_document(std::move(raw), key).text);
  CHECK(source.bytes_done() == source.bytes_total());
  return texts;
}

}  // namespace

TEST_CASE("text: files and directories, sorted, in the order given") {
  const Scratch scratch;
  write_text(scratch / "d/b.txt", "bee\n");
  write_text(scratch / "d/a.jsonl",
             "{\"text\": \"one\"}\n\n  \r\n{\"text\": \"two\", \"id\": 3}\r\n{\"text\": \"\"}");
  write_text(scratch / "d/sub/c.txt", "\xEF\xBB\xBFsea");  // a byte order mark
  write_text(scratch / "d/ignored.bin", "binary");
  write_text(scratch / "z.txt", "");
  const std::vector<std::string> expected{"", "one", "two", "", "bee\n", "sea"};
  CHECK(read_all({scratch / "z.txt", scratch / "d"}) == expected);
}

TEST_CASE("text: JSON escapes and another key") {
  const Scratch scratch;
  write_text(scratch / "a.jsonl", "{\"content\": \"tab\\t \\u00e9 \\ud83d\\ude80 \\u0000end\"}\n");
  CHECK(read_all({scratch / "a.jsonl"}, "content").front() == std::string("tab\t é \U0001F680 \0end", 17));
}

TEST_CASE("text: what is wrong with a JSON line is said with file and line") {
  const Scratch scratch;
  const auto file = scratch / "a.jsonl";
  const auto message = [&](const std::string& line) {
    write_text(file, "{\"text\": \"fine\"}\n\n" + line + "\n{\"text\": \"fine\"}\n");
    return message_of([&] { read_all({file}); });
  };
  CHECK(message("{\"text\": \"fine\"}").empty());
  for (const char* line : {"{\"text\": \"cut", "text", "{\"text\": \"a\"} {}", "{\"text\": 'a'}"}) {
    CAPTURE(line);
    CHECK(contains(message(line), file.string() + ", line 3: not JSON"));
  }
  CHECK(contains(message("[1]"), ", line 3: a JSON array, not an object"));
  CHECK(contains(message("{\"txt\": \"a\"}"), ", line 3: the object has no key \"text\"; name"));
  CHECK(contains(message("{\"text\": 5}"), ", line 3: \"text\" is a JSON number, not a string"));
}

TEST_CASE("text: inputs that cannot be") {
  const Scratch scratch;
  CHECK(contains(message_of([&] { list_text_files({scratch / "none"}); }), "none does not exist"));
  CHECK(contains(message_of([&] { list_text_files({scratch.path()}); }), "holds no .txt or .jsonl file"));
  CHECK(contains(message_of([&] { list_text_files({}); }), "no input"));
  write_text(scratch / "a.txt.gz", "x");
  CHECK(contains(message_of([&] { list_text_files({scratch / "a.txt.gz"}); }), "decompress"));
}

TEST_CASE("UTF-8: each maximal ill-formed part becomes one U+FFFD") {
  const auto repaired = [](std::string text) {
    const auto count = repair_utf8(text);
    return std::pair(text, count);
  };
  const std::string r = "\xEF\xBF\xBD";
  const std::string fine("a\0é€\U0001F680\U0010FFFF\x7F", 16);
  CHECK(repaired(fine) == std::pair(fine, std::int64_t{0}));
  CHECK(repaired("") == std::pair(std::string(), std::int64_t{0}));
  CHECK(repaired("a\xFF"
                 "b") == std::pair("a" + r + "b", std::int64_t{1}));
  CHECK(repaired("\xC0\xAF") == std::pair(r + r, std::int64_t{2}));                  // overlong
  CHECK(repaired("\xE0\x80\x80") == std::pair(r + r + r, std::int64_t{3}));          // overlong
  CHECK(repaired("\xED\xA0\x80") == std::pair(r + r + r, std::int64_t{3}));          // a surrogate
  CHECK(repaired("\xF4\x90\x80\x80") == std::pair(r + r + r + r, std::int64_t{4}));  // above U+10FFFF
  CHECK(repaired("\xF0\x9F\x9A") == std::pair(r, std::int64_t{1}));                  // cut off
  CHECK(repaired("\xE2\x82"
                 "a") == std::pair(r + "a", std::int64_t{1}));
  // Unicode 15, table 3-11.
  CHECK(repaired("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == std::pair(r + r + r + r + "A", std::int64_t{4}));
}

TEST_CASE("text: ill-formed UTF-8 in either kind of file is repaired and counted") {
  const Scratch scratch;
  write_text(scratch / "a.txt", "x\xFFy");
  write_text(scratch / "b.jsonl", "{\"text\": \"x\xFE\xC3y\"}\n");
  TextSource source(list_text_files({scratch.path()}));
  RawDocument raw;
  REQUIRE(source.next(raw));
  Document document = parse_document(std::move(raw), "text");
  CHECK(document.text == "x\uFFFDy");
  CHECK(document.repaired == 1);
  REQUIRE(source.next(raw));
  document = parse_document(std::move(raw), "text");
  CHECK(document.text == "x\uFFFD\uFFFDy");
  CHECK(document.repaired == 2);
}
