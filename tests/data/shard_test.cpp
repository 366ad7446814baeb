#include "data/dataset/shard.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/files/hdf5.h"
#include "tests/data/support.h"
#include "tests/support/file_size_limit.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;

namespace {

const ShardInfo shared{.vocab_size = 1000, .end_of_text = 2, .tokenizer = "sentencepiece:sha256:abc"};
const std::vector<std::vector<std::int32_t>> documents{{5, 6, 7}, {}, {999, 0, 1}, {8}, {}};
const std::vector<std::int32_t> stream{5, 6, 7, 2, 2, 999, 0, 1, 2, 8, 2, 2};

ShardInfo write_documents(const std::filesystem::path& file, const ShardInfo& info, std::int64_t chunk,
                          int compression = 0) {
  ShardWriter writer(file, info, {.compression = compression, .chunk_tokens = chunk});
  for (const auto& document : documents) writer.add_document(document);
  return writer.finish();
}

std::vector<std::int32_t> read_all(const ShardReader& reader) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(reader.info().tokens));
  reader.read(0, tokens);
  return tokens;
}

}  // namespace

TEST_CASE("shard: what is written is read, whatever the chunks") {
  const Scratch scratch;
  for (const std::int64_t chunk : {1, 2, 3, 4, 11, 12, 13, 65536}) {
    for (const int compression : {0, 9}) {
      CAPTURE(chunk);
      const auto written = write_documents(scratch / "s.h5", shared, chunk, compression);
      CHECK(written.tokens == 12);
      CHECK(written.documents == 5);
      const ShardReader reader(scratch / "s.h5");
      CHECK(reader.info().tokens == 12);
      CHECK(reader.info().documents == 5);
      CHECK(reader.info().vocab_size == 1000);
      CHECK(reader.info().end_of_text == 2);
      CHECK(reader.info().tokenizer == shared.tokenizer);
      CHECK(reader.document_offsets() == std::vector<std::int64_t>{0, 4, 5, 9, 11, 12});
      for (std::size_t begin = 0; begin <= stream.size(); ++begin) {
        for (std::size_t end = begin; end <= stream.size(); ++end) {
          std::vector<std::int32_t> range(end - begin);
          reader.read(static_cast<std::int64_t>(begin), range);
          CHECK(std::equal(range.begin(), range.end(), stream.begin() + static_cast<std::ptrdiff_t>(begin)));
        }
      }
    }
  }
}

TEST_CASE("shard: tokens take 16 bits up to a vocabulary of 65536 and 32 above") {
  const Scratch scratch;
  for (const std::int64_t vocab_size : {65536, 65537}) {
    const auto name = scratch / "v.h5";
    ShardWriter writer(name, {.vocab_size = vocab_size, .end_of_text = vocab_size - 1, .tokenizer = "t"}, {});
    writer.add_document(std::vector<std::int32_t>{65535, 0});
    writer.finish();
    const auto eot = static_cast<std::int32_t>(vocab_size - 1);
    CHECK(read_all(ShardReader(name)) == std::vector<std::int32_t>{65535, 0, eot});
    CHECK(hdf5::File::open(name).dataset("tokens").element_bytes() == (vocab_size == 65536 ? 2 : 4));
  }
}

TEST_CASE("shard: without documents, and unfinished") {
  const Scratch scratch;
  {
    ShardWriter writer(scratch / "empty.h5", shared, {});
    writer.finish();
    const ShardReader reader(scratch / "empty.h5");
    CHECK(reader.info().tokens == 0);
    CHECK(reader.document_offsets() == std::vector<std::int64_t>{0});
  }
  {
    ShardWriter writer(scratch / "unfinished.h5", shared, {.compression = 0, .chunk_tokens = 2});
    writer.add_document(documents[0]);
    CHECK(scratch.files() == std::vector<std::string>{".unfinished.h5.partial", "empty.h5"});
  }
  CHECK(scratch.files() == std::vector<std::string>{"empty.h5"});
}

TEST_CASE("shard: ids outside the vocabulary are refused on both sides") {
  const Scratch scratch;
  ShardWriter writer(scratch / "s.h5", shared, {});
  CHECK_THROWS_AS(writer.add_document(std::vector<std::int32_t>{1000}), std::logic_error);
  write_documents(scratch / "t.h5", shared, 4);
  test::set_attribute(scratch / "t.h5", "vocab_size", 999);
  const std::string message = message_of([&] { read_all(ShardReader(scratch / "t.h5")); });
  CHECK(contains(message, "t.h5: token 5 is id 999, outside the vocabulary of 999"));
}

TEST_CASE("shard: missing, foreign, truncated and other versions are named with the way out") {
  const Scratch scratch;
  const auto open = [&](const std::string& name) { return message_of([&] { ShardReader(scratch / name); }); };

  CHECK(contains(open("none.h5"), (scratch / "none.h5").string() + ": no such file"));

  test::write_text(scratch / "text.h5", "not HDF5 at all");
  CHECK(contains(open("text.h5"), (scratch / "text.h5").string() + " as an HDF5 file"));

  hdf5::File::create(scratch / "other.h5").close();
  CHECK(contains(open("other.h5"), "other.h5 is not a token shard"));
  CHECK(contains(open("other.h5"), "ratplus prepare"));

  write_documents(scratch / "version.h5", shared, 4);
  test::set_attribute(scratch / "version.h5", "version", 7);
  CHECK(contains(open("version.h5"), "version.h5 has shard format version 7"));

  write_documents(scratch / "counts.h5", shared, 4);
  test::set_attribute(scratch / "counts.h5", "tokens", 13);
  CHECK(contains(open("counts.h5"), "counts.h5: holds 12 tokens"));

  write_documents(scratch / "whole.h5", shared, 4);
  const std::string bytes = test::read_text(scratch / "whole.h5");
  for (const std::size_t kept :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    CAPTURE(kept);
    test::write_text(scratch / "cut.h5", bytes.substr(0, kept));
    const std::string message = open("cut.h5");
    CHECK(contains(message, (scratch / "cut.h5").string()));
    CHECK(contains(message, "truncated, damaged or of another kind"));
  }
}

TEST_CASE("shard: a flipped byte anywhere is either noticed or harmless") {
  const Scratch scratch;
  write_documents(scratch / "s.h5", shared, 4);
  const std::string bytes = test::read_text(scratch / "s.h5");
  int noticed = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    test::write_text(scratch / "d.h5", damaged);
    std::vector<std::int32_t> tokens;
    std::vector<std::int64_t> offsets;
    ShardInfo info;
    const std::string message = message_of([&] {
      const ShardReader reader(scratch / "d.h5");
      tokens = read_all(reader);
      offsets = reader.document_offsets();
      info = reader.info();
    });
    CAPTURE(at);
    if (!message.empty()) {
      ++noticed;
      REQUIRE(contains(message, (scratch / "d.h5").string()));
      continue;
    }
    // Harmless (unused space in the file): everything reads as it was written.
    REQUIRE(tokens == stream);
    REQUIRE(offsets == std::vector<std::int64_t>{0, 4, 5, 9, 11, 12});
    REQUIRE(info.vocab_size == 1000);
    REQUIRE(info.end_of_text == 2);
    REQUIRE(info.tokenizer == shared.tokenizer);
  }
  MESSAGE(noticed << " of " << bytes.size() << " flipped bytes noticed");
  CHECK(noticed > 1000);
}

TEST_CASE("shard: a full disk is one clear message, and nothing stays") {
  const Scratch scratch;
  const std::vector<std::int32_t> document(1000, 17);
  const auto fill = [&](std::int64_t chunk) {
    return message_of([&] {
      const ratplus::test::FileSizeLimit limit(40'000);
      ShardWriter writer(scratch / "s.h5", shared, {.compression = 0, .chunk_tokens = chunk});
      for (int i = 0; i < 100; ++i) writer.add_document(document);
      writer.finish();
    });
  };
  for (const std::int64_t chunk : {100, 1000, 1'000'000}) {  // noticed in a write, and only at the end
    CAPTURE(chunk);
    const std::string message = fill(chunk);
    CHECK(contains(message, (scratch / "s.h5").string() + ": cannot write"));
    CHECK(contains(message, "File too large; raise the file size limit"));
    CHECK(scratch.files().empty());
  }
  // HDF5 is of use afterwards.
  write_documents(scratch / "after.h5", shared, 4);
  CHECK(read_all(ShardReader(scratch / "after.h5")) == stream);
}

TEST_CASE("shard: the README's three lines of h5py read it") {
  std::string python;
  for (const std::string candidate :
       {"python3", "/usr/bin/python3"}) {  // Debian's h5py is for Debian's python3
    if (std::system((candidate + " -c 'import h5py' 2>/dev/null").c_str()) == 0) python = candidate;
  }
  if (python.empty()) {
    MESSAGE("left out: no python3 here has h5py");
    return;
  }
  const std::string readme = test::read_text(DATA_README);
  const std::string fence = "```python\n";
  const std::size_t begin = readme.find(fence) + fence.size();
  REQUIRE(begin != std::string::npos);
  const std::string program = readme.substr(begin, readme.find("```", begin) - begin);
  CHECK(std::count(program.begin(), program.end(), '\n') == 3);

  const Scratch scratch;
  write_documents(scratch / "train-00000.h5", shared, 4, 1);
  test::write_text(scratch / "read.py", program);
  const std::string command = "cd '" + scratch.path().string() + "' && " + python + " read.py 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  std::array<char, 4096> part;
  while (const std::size_t got = std::fread(part.data(), 1, part.size(), pipe))
    output.append(part.data(), got);
  CHECK(pclose(pipe) == 0);
  CAPTURE(output);
  CHECK(contains(output, "[8 2]"));
  CHECK(contains(output, "'vocab_size': 1000"));
}
