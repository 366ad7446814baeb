#include "data/text/text_source.h"

#include <doctest/doctest.h>
#include <zlib.h>
#include <zstd.h>

#include "base/utf8.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::prose;
using test::Scratch;
using test::write_text;

namespace {

std::string packed_gzip(const std::string& bytes) {
  z_stream state{};
  REQUIRE(deflateInit2(&state, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(deflateBound(&state, bytes.size()), '\0');
  std::string in = bytes;
  state.next_in = reinterpret_cast<Bytef*>(in.data());
  state.avail_in = static_cast<uInt>(in.size());
  state.next_out = reinterpret_cast<Bytef*>(packed.data());
  state.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(deflate(&state, Z_FINISH) == Z_STREAM_END);
  packed.resize(state.total_out);
  deflateEnd(&state);
  return packed;
}

std::string packed_zstd(const std::string& bytes) {
  std::string packed(ZSTD_compressBound(bytes.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 3));
  return packed;
}

/// As the name's end says.
void write_packed(const std::filesystem::path& file, const std::string& bytes) {
  write_text(file, file.extension() == ".gz" ? packed_gzip(bytes) : packed_zstd(bytes));
}

std::vector<std::string> read_all(const std::vector<std::filesystem::path>& inputs,
                                  const std::string& key = "text") {
  const std::vector<TextFile> files = list_text_files(inputs);
  TextSource source(whole_files(files), key);
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
  CHECK(contains(message_of([&] { list_text_files({scratch.path()}); }),
                 "holds no .txt, .jsonl (both also with .gz or .zst) or .parquet file"));
  CHECK(contains(message_of([&] { list_text_files({}); }), "no input"));
  write_text(scratch / "a.txt.xz", "x");
  CHECK(
      contains(message_of([&] { list_text_files({scratch / "a.txt.xz"}); }), "unpack, convert or rename it"));
  CHECK(contains(message_of([&] { list_text_files({scratch / "*.md"}); }), "*.md matches nothing"));
  CHECK(contains(message_of([&] { list_text_files({scratch / "*.xz"}); }),
                 "a.txt.xz is neither a directory nor"));
}

TEST_CASE("text: links are followed, each file counts once, and what is hidden is said") {
  const Scratch scratch;
  write_text(scratch / "d/a.txt", "a");
  write_text(scratch / "d/.b.txt", "hidden");
  write_text(scratch / "d/.cache/c.txt", "hidden");
  write_text(scratch / "far/e.txt", "e");
  std::filesystem::create_directory_symlink(scratch / "far", scratch / "d/linked");
  std::filesystem::create_directory_symlink(scratch / "d", scratch / "far/back");  // a cycle
  std::filesystem::create_symlink(scratch / "d/a.txt", scratch / "d/z.txt");
  CHECK(read_all({scratch / "d", scratch / "d/a.txt"}) == std::vector<std::string>{"a", "e"});
  std::vector<std::string> notes;
  list_text_files({scratch / "d", scratch / "d/a.txt"}, &notes);
  REQUIRE(notes.size() == 2);
  CHECK(contains(notes[0], "passed over: 2 hidden files or directories"));
  CHECK(contains(notes[0], "d/.b.txt"));
  CHECK(contains(notes[1], "taken once: 3 files or directories named or reached again"));
  list_text_files({scratch / "far/e.txt"}, &notes);
  CHECK(notes.empty());
  CHECK(read_all({scratch / "d/.b.txt"}).front() == "hidden");  // it is named
}

TEST_CASE("text: a link to nothing and ** are errors that name the way out") {
  const Scratch scratch;
  write_text(scratch / "d/a.txt", "a");
  CHECK(contains(message_of([&] { list_text_files({scratch / "d/**/*.txt"}); }),
                 "give the directory, " + (scratch / "d").string() + ", which"));
  std::filesystem::create_symlink(scratch / "gone.txt", scratch / "d/b.txt");
  for (const char* input : {"d", "d/b.txt", "d/*.txt"}) {
    CAPTURE(input);
    CHECK(contains(message_of([&] { list_text_files({scratch / input}); }),
                   "d/b.txt is a link to " + (scratch / "gone.txt").string() + ", which does not exist"));
  }
}

TEST_CASE("text: patterns, sorted, and a file whose name looks like one") {
  const Scratch scratch;
  write_text(scratch / "b/x.txt", "bx");
  write_text(scratch / "a/x.txt", "ax");
  write_text(scratch / "a/y.jsonl", "{\"text\": \"ay\"}");
  write_text(scratch / "[z].txt", "z");
  CHECK(read_all({scratch / "*/x.txt"}) == std::vector<std::string>{"ax", "bx"});
  CHECK(read_all({scratch / "?"}) == std::vector<std::string>{"ax", "ay", "bx"});
  CHECK(read_all({scratch / "[z].txt"}) == std::vector<std::string>{"z"});
}

TEST_CASE("text: gzip and zstd, of one member or several, and empty ones") {
  const Scratch scratch;
  const std::string text = prose(1, 300'000);  // more than a buffer
  write_packed(scratch / "a.txt.gz", text);
  write_packed(scratch / "b.txt.zst", text);
  write_packed(scratch / "c.jsonl.gz", "{\"text\": \"one\"}\n{\"text\": \"t");
  write_text(scratch / "c.jsonl.gz", test::read_text(scratch / "c.jsonl.gz") + packed_gzip("wo\"}\n"));
  write_packed(scratch / "d.jsonl.zst", "{\"text\": \"three\"}");
  write_packed(scratch / "e.txt.gz", "");
  CHECK(read_all({scratch.path()}) == std::vector<std::string>{text, text, "one", "two", "three", ""});
}

TEST_CASE("text: a packed file that is cut off or damaged is named") {
  const Scratch scratch;
  const std::string text = prose(2, 20'000);
  for (const char* name : {"a.txt.gz", "a.txt.zst"}) {
    const auto file = scratch / name;
    write_packed(file, text);
    const std::string packed = test::read_text(file);
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{5}, packed.size() / 2, packed.size() - 1}) {
      CAPTURE(bytes);
      write_text(file, packed.substr(0, bytes));
      CHECK(contains(message_of([&] { read_all({file}); }), file.string() + ": the "));
      CHECK(contains(message_of([&] { read_all({file}); }), "data end in the middle: the file is truncated"));
    }
    std::string damaged = packed;
    for (std::size_t at = packed.size() / 2; at < packed.size() / 2 + 40; ++at) damaged[at] = '!';
    write_text(file, damaged);
    CHECK(contains(message_of([&] { read_all({file}); }), file.string() + ": not sound"));
    write_text(file, "plain text");
    CHECK(contains(message_of([&] { read_all({file}); }), file.string() + ": not sound"));
  }
}

TEST_CASE("text: the parts of a file of JSON lines give each line once, wherever it is cut") {
  const Scratch scratch;
  const auto path = scratch / "a.jsonl";
  write_text(path, "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\r\n{\"text\": \"three\"}");
  const std::vector<TextFile> files = list_text_files({path});
  for (std::int64_t cut = 0; cut <= files[0].bytes; ++cut) {
    CAPTURE(cut);
    std::vector<TextPart> parts{{&files[0], 0, cut, cut},
                                {&files[0], cut, TextPart::to_the_end, files[0].bytes - cut}};
    TextSource source(parts, "text");
    std::vector<std::string> texts;
    for (RawDocument raw; source.next(raw);) texts.push_back(parse_document(std::move(raw), "text").text);
    CHECK(texts == std::vector<std::string>{"one", "two", "three"});
  }
  write_text(path, "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n{\"text\": torn\n");
  TextSource source({{&files[0], 17, TextPart::to_the_end, 1}}, "text");
  RawDocument raw;
  REQUIRE(source.next(raw));
  REQUIRE(source.next(raw));
  CHECK(contains(message_of([&] { parse_document(std::move(raw), "text"); }), ", line 4: not JSON"));
}

TEST_CASE("text: one document of 100 MB") {
  const Scratch scratch;
#ifdef __SANITIZE_ADDRESS__
  const std::string text(10'000'000, 'x');  // its JSON takes a microsecond a byte there
#else
  const std::string text(100'000'000, 'x');
#endif
  write_packed(scratch / "a.jsonl.gz", "{\"text\": \"" + text + "\"}\n{\"text\": \"next\"}\n");
  const auto texts = read_all({scratch / "a.jsonl.gz"});
  REQUIRE(texts.size() == 2);
  CHECK(texts[0] == text);
  CHECK(texts[1] == "next");
}

TEST_CASE("text: a document above the limit is named, at whatever place of a buffer it ends") {
  const Scratch scratch;
  constexpr std::size_t most = 3'000'000;
  const auto read = [&](const std::filesystem::path& file) {
    const std::vector<TextFile> files = list_text_files({file});
    TextSource source(whole_files(files), "text", most);
    RawDocument raw;
    return message_of([&] {
      while (source.next(raw)) {
      }
    });
  };
  for (const std::size_t bytes : {most, most + 1, most + 500'000, most + 1'500'000}) {
    CAPTURE(bytes);
    const std::string text(bytes, 'x');
    write_text(scratch / "a.txt", text);
    write_packed(scratch / "b.txt.gz", text);
    write_text(scratch / "c.jsonl", text + "\nnext\n");
    for (const char* name : {"a.txt", "b.txt.gz", "c.jsonl"}) {
      const auto message = read(scratch / name);
      CHECK(message.empty() == (bytes <= most));
      if (!message.empty()) CHECK(contains(message, (scratch / name).string() + ": a "));
    }
  }
  if (!RATPLUS_WITH_PARQUET) return;
  const auto parquet = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/texts.parquet";
  const std::vector<TextFile> files = list_text_files({parquet});
  TextSource source(whole_files(files), "text", 4999);
  RawDocument raw;
  for (int row = 0; row < 4; ++row) REQUIRE(source.next(raw));
  CHECK(contains(message_of([&] { source.next(raw); }), "texts.parquet: a row's text of more than"));
}

TEST_CASE("text: Parquet, with nulls and several row groups") {
  const auto file = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/texts.parquet";
  if (!RATPLUS_WITH_PARQUET) {
    CHECK(contains(message_of([&] { read_all({file}); }),
                   "was built without Parquet; run `bash jobs/setup.sh --parquet`"));
    return;
  }
  const std::vector<std::string> expected{"first", "", "", "dr\u00f6lf \U0001F680", std::string(5000, 'y'),
                                          "last"};
  CHECK(read_all({file}) == expected);
  const std::vector<TextFile> files = list_text_files({file});
  TextSource second({{&files[0], 1, 2, 10}}, "text");
  RawDocument raw;
  REQUIRE(second.next(raw));
  CHECK(raw.bytes == "");
  CHECK(raw.line == 2);
  REQUIRE(second.next(raw));
  CHECK(raw.bytes == expected[3]);
  CHECK_FALSE(second.next(raw));
  CHECK(read_all({file}, "url").back() == "u5");  // another column, dictionary-encoded
  CHECK(contains(
      message_of([&] { read_all({file}, "txt"); }),
      "texts.parquet: there is no column \"txt\"; name one of these with --text-key: text, url, id"));
  CHECK(contains(message_of([&] { read_all({file}, "id"); }), "column \"id\" does not hold one text a row"));
  const Scratch scratch;
  const std::string bytes = test::read_text(file);
  write_text(scratch / "a.parquet", bytes.substr(0, bytes.size() / 2));
  CHECK(contains(message_of([&] { read_all({scratch / "a.parquet"}); }),
                 "a.parquet: not a sound Parquet file"));
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

TEST_CASE("text: what is no character is U+FFFD in any kind of file, and told where it is in the text") {
  struct Case {
    std::string line;
    std::string text;
    bool repaired;
  };
  const Scratch scratch;
  write_text(scratch / "a.txt", "x\xFFy");
  write_text(scratch / "b.txt", "fine \uFFFD");
  std::vector<Case> cases{
      {"", "x\uFFFDy", true},
      {"", "fine \uFFFD", false},
      {"{\"text\": \"x\xFE\xC3y\"}", "x\uFFFD\uFFFDy", true},
      {"{\"text\": \"\xED\xA0\x80\"}", "\uFFFD\uFFFD\uFFFD", true},  // errors="surrogatepass"
      {R"({"text": "x\ud800y\udc00"})", "x\uFFFDy\uFFFD", true},
      {"{\"text\": \"fine\", \"url\": \"\xFF\"}", "fine", false},
      {R"({"text": "fine", "url": "\ud800"})", "fine", false}};
  std::string lines;
  for (const Case& one : cases) lines += one.line.empty() ? "" : one.line + "\n";
  write_text(scratch / "c.jsonl", lines);
  std::vector<std::filesystem::path> inputs{scratch.path()};
  if (RATPLUS_WITH_PARQUET) {
    inputs.push_back(std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/ill_formed.parquet");
    cases.push_back({"", "fine", false});
    cases.push_back({"", "x\uFFFDy", true});
  }
  const std::vector<TextFile> files = list_text_files(inputs);
  TextSource source(whole_files(files), "text");
  for (const Case& one : cases) {
    CAPTURE(one.text);
    RawDocument raw;
    REQUIRE(source.next(raw));
    const Document document = parse_document(std::move(raw), "text");
    CHECK(document.text == one.text);
    CHECK(document.repaired == one.repaired);
  }
}

TEST_CASE("text: padding behind packed data is passed over, other bytes are named") {
  const Scratch scratch;
  const auto gz = scratch / "a.txt.gz";
  for (const std::size_t zeros : {1, 512, 600'000}) {
    write_text(gz, packed_gzip("one ") + std::string(zeros, '\0'));
    CHECK(read_all({gz}) == std::vector<std::string>{"one "});
  }
  write_text(gz, packed_gzip("one ") + std::string(5, '\0') + packed_gzip("two"));
  CHECK(read_all({gz}) == std::vector<std::string>{"one two"});
  const auto zst = scratch / "a.txt.zst";
  const std::string skipped("\x50\x2A\x4D\x18\x03\0\0\0abc", 11);
  write_text(zst, skipped + packed_zstd("one ") + skipped + packed_zstd("two") + skipped);
  CHECK(read_all({zst}) == std::vector<std::string>{"one two"});
  for (const std::string& garbage : {std::string("x"), std::string("garbage")}) {
    write_text(gz, packed_gzip("one") + garbage);
    CHECK(contains(message_of([&] { read_all({gz}); }),
                   "a.txt.gz: other bytes follow the end of its gzip data"));
    write_text(zst, packed_zstd("one") + garbage);
    CHECK(contains(message_of([&] { read_all({zst}); }),
                   "a.txt.zst: other bytes follow the end of its zstd data"));
  }
}

TEST_CASE("text: files of a known other kind are named with the way out") {
  const Scratch scratch;
  const auto message = [&](const char* name, const std::string& bytes) {
    write_text(scratch / name, bytes);
    return message_of([&] { read_all({scratch / name}); });
  };
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
  for (const char* name : {"a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.zst"})
    CHECK(contains(message(name, pointer), "is a Git LFS pointer, not the file itself; fetch it with"));
  CHECK(contains(message("a.txt", std::string("\xFF\xFEh\0i\0", 6)), "is text in UTF-16"));
  CHECK(contains(message("a.txt", std::string("\xFF\xFE\0\0h\0\0\0", 8)), "is text in UTF-32"));
  CHECK(contains(message("a.jsonl", "[\n{\"text\": \"a\"}\n]\n"),
                 "the file is a JSON array; write one object"));
}
