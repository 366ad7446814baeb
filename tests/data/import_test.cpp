#include "data/prepare/import_tokens.h"

#include <doctest/doctest.h>

#include "base/files/hdf5.h"
#include "data/dataset/token_stream.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;
using test::write_text;

namespace {

const auto quiet = [](const ImportProgress&) {};

template <typename T>
void write_bin(const std::filesystem::path& file, const std::vector<T>& tokens) {
  write_text(file, {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(T)});
}

std::vector<std::int32_t> stream_of(const std::filesystem::path& directory, Split split) {
  TokenStream stream(directory, read_manifest(directory), split);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(stream.tokens()));
  stream.read(0, tokens);
  return tokens;
}

ImportOptions options_for(const Scratch& scratch) {
  ImportOptions options;
  options.train = {scratch / "a.bin"};
  options.validation = {scratch / "v.bin"};
  options.output = scratch / "out";
  options.vocab_size = 60000;
  options.end_of_text_id = 0;
  return options;
}

}  // namespace

TEST_CASE("import: raw streams come out token for token, over files, shards and empty documents") {
  const Scratch scratch;
  ImportOptions options = options_for(scratch);
  options.train.push_back(scratch / "b.bin");
  options.shard_tokens = 5;
  write_bin<std::uint16_t>(scratch / "a.bin",
                           {0, 5, 59999, 0, 0, 7});  // an end first, and a document over two files
  write_bin<std::uint16_t>(scratch / "b.bin", {8, 0, 1, 2, 3});
  write_bin<std::uint16_t>(scratch / "v.bin", {9, 0});
  const Manifest manifest = import_tokens(options, quiet).manifest;
  CHECK(stream_of(options.output, Split::train) ==
        std::vector<std::int32_t>{0, 5, 59999, 0, 0, 7, 8, 0, 1, 2, 3, 0});
  CHECK(stream_of(options.output, Split::validation) == std::vector<std::int32_t>{9, 0});
  CHECK(manifest.documents(Split::train) == 5);
  CHECK(manifest.train.size() == 2);
  CHECK(manifest.vocab_size == 60000);
}

TEST_CASE("import: 32-bit .bin, and HDF5 files as h5py writes them") {
  const Scratch scratch;
  ImportOptions options = options_for(scratch);
  options.vocab_size = 100'000;
  options.bin_bytes = 4;
  write_bin<std::uint32_t>(scratch / "v.bin", {99'999, 0});
  {
    auto file = hdf5::File::create(scratch / "s.h5");
    const std::vector<std::int64_t> tokens{70'000, 1, 0, 2};
    file.create_dataset("tokens", hdf5::Element::int64, 4).write(0, std::span<const std::int64_t>(tokens));
    file.close();
  }
  options.train = {scratch / "s.h5"};
  import_tokens(options, quiet);
  CHECK(stream_of(options.output, Split::train) == std::vector<std::int32_t>{70'000, 1, 0, 2, 0});
  CHECK(stream_of(options.output, Split::validation) == std::vector<std::int32_t>{99'999, 0});
}

TEST_CASE("import: files that h5py made (tests/reference/make_tokens.py), of every layout and type in use") {
  const auto made = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data";
  std::vector<std::int32_t> expected;
  for (std::int64_t i = 0; i < 1000; ++i) {
    const std::int64_t square = i * i % 50'000;
    expected.push_back(i % 37 == 0 ? 0 : square == 0 ? 1 : static_cast<std::int32_t>(square));
  }
  REQUIRE(expected.back() == 0);
  const Scratch scratch;
  ImportOptions options = options_for(scratch);
  write_bin<std::uint16_t>(scratch / "v.bin", {9, 0});
  options.force = true;
  options.train = {made / "tokens_one.h5"};
  import_tokens(options, quiet);  // the file's only dataset needs no name
  CHECK(stream_of(options.output, Split::train) == expected);
  options.train = {made / "tokens_many.h5"};
  for (const char* name : {"plain", "big_endian", "nested/deep/int64", "checked"}) {
    CAPTURE(name);
    options.dataset = name;
    import_tokens(options, quiet);
    CHECK(stream_of(options.output, Split::train) == expected);
  }
  const auto message = [&](const char* name) {
    options.dataset = name;
    return message_of([&] { import_tokens(options, quiet); });
  };
  CHECK(contains(message(""), "tokens_many.h5: name the dataset with --dataset; there are: "));
  CHECK(contains(message("rows"), "dataset \"rows\" has 2 dimensions, not one; store it flat"));
  CHECK(contains(message("one"), "dataset \"one\" has 0 dimensions, not one"));
  CHECK(contains(message("real"), "dataset \"real\" does not hold integers"));
  CHECK(contains(message("text"), "dataset \"text\" does not hold integers"));
  CHECK(contains(message("ragged"), "dataset \"ragged\" does not hold integers"));
  CHECK(contains(message("signed"),
                 "signed numbers of 8 bits, which cannot hold the ids of a vocabulary of 60000"));
  CHECK(contains(message("empty"), "the train split is empty"));
  CHECK(contains(message("missing"), "tokens_many.h5"));
  CHECK(contains(message("nested"), "tokens_many.h5"));
}

TEST_CASE("import: documents held out by a hash of their tokens") {
  const Scratch scratch;
  ImportOptions options = options_for(scratch);
  options.validation.clear();
  options.validation_fraction = 0.3;
  std::vector<std::uint16_t> tokens;
  for (std::uint16_t i = 1; i <= 300; ++i)
    tokens.insert(tokens.end(), {i, static_cast<std::uint16_t>(i + 1), 0});
  write_bin(scratch / "a.bin", tokens);
  const Manifest manifest = import_tokens(options, quiet).manifest;
  CHECK(manifest.documents(Split::train) + manifest.documents(Split::validation) == 300);
  CHECK(std::abs(manifest.documents(Split::validation) - 90) < 40);  // 5 standard deviations
}

TEST_CASE("import: what cannot be is named, and nothing is left") {
  const Scratch scratch;
  ImportOptions options = options_for(scratch);
  write_bin<std::uint16_t>(scratch / "a.bin", {1, 60000, 0});
  write_bin<std::uint16_t>(scratch / "v.bin", {1, 0});
  const auto message = [&] { return message_of([&] { import_tokens(options, quiet); }); };
  CHECK(contains(message(), "a.bin: token 1 is 60000, outside the vocabulary of 60000"));
  write_text(scratch / "a.bin", "abc");
  CHECK(contains(message(), "a.bin: its 3 bytes are no whole number of 2-byte tokens"));
  write_text(scratch / "a.bin", "");
  CHECK(contains(message(), "the train split is empty"));
  options.train = {scratch / "none.bin"};
  CHECK(contains(message(), "none.bin: No such file"));
  options.train = {scratch / "a.npy"};
  CHECK(contains(message(), "a.npy is neither a .bin nor a .h5 file"));
  {
    auto file = hdf5::File::create(scratch / "two.h5");
    file.create_dataset("x", hdf5::Element::float32, 0);
    file.create_dataset("y", hdf5::Element::int32, 0);
    file.close();
  }
  options.train = {scratch / "two.h5"};
  CHECK(contains(message(), "two.h5: name the dataset with --dataset; there are: x, y"));
  options.dataset = "x";
  CHECK(contains(message(), "dataset \"x\" does not hold integers"));
  options.vocab_size = 0;
  CHECK(contains(message(), "give --tokenizer, or --vocab-size and --end-of-text-id"));
  CHECK_FALSE(std::filesystem::exists(options.output));
}

TEST_CASE("import: big-endian tokens are named, and not read as others") {
  const Scratch scratch;
  // As a text's: four of five tokens are frequent ones, and every 200th ends a document.
  std::vector<std::uint16_t> tokens, swapped;
  std::uint32_t random = 1;
  for (int i = 0; i < 20000; ++i) {
    random = random * 1664525 + 1013904223;
    const std::uint32_t draw = random >> 8;
    const std::uint32_t token = i % 200 == 199  ? 50256
                                : draw % 5 != 0 ? (draw / 5) % 3000
                                                : (draw / 5) % 50000;
    tokens.push_back(static_cast<std::uint16_t>(token));
    swapped.push_back(static_cast<std::uint16_t>(token << 8 | token >> 8));
  }
  ImportOptions options = options_for(scratch);
  options.vocab_size = 65536;
  options.end_of_text_id = 50256;
  write_bin(scratch / "v.bin", tokens);
  write_bin(scratch / "a.bin", swapped);
  const auto message = [&] { return message_of([&] { import_tokens(options, quiet); }); };
  CHECK(contains(message(), "a.bin: seems to be big-endian: of its first 20000 tokens "));
  CHECK(contains(message(), "dd conv=swab if=" + (scratch / "a.bin").string()));
  CHECK(contains(message(), "say --bin-bytes 2"));
  // Said to be right, and one document, which a hash may hold out: the reason is there too.
  options.bin_bytes = 2;
  options.validation.clear();
  options.validation_fraction = 0.5;
  const auto empty = message();
  CHECK(contains(empty, " split is empty"));
  CHECK(contains(empty, "a.bin: seems to be big-endian"));
  options.validation = {scratch / "v.bin"};
  bool warned = false;
  for (const auto& warning : import_tokens(options, quiet).warnings)
    warned = warned || contains(warning, "a.bin: seems to be big-endian");
  CHECK(warned);
  // The right order, and tokens of any value alike, raise no doubt.
  options.bin_bytes = 0;
  options.force = true;
  write_bin(scratch / "a.bin", tokens);
  CHECK(import_tokens(options, quiet).warnings.empty());
  for (auto& token : tokens)
    token = static_cast<std::uint16_t>((random = random * 1664525 + 1013904223) >> 16);
  tokens.back() = 50256;
  write_bin(scratch / "a.bin", tokens);
  CHECK(message().empty());
}
