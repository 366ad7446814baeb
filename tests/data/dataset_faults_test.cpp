// Datasets that are replaced, swapped or damaged, and foreign files for tokens.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/files/hdf5.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/staged_dataset.h"
#include "data/dataset/token_stream.h"
#include "data/prepare/import_tokens.h"
#include "data/prepare/supervised.h"
#include "data/prepare/token_file.h"
#include "data/samples/verify_dataset.h"
#include "data/tokenizer/token_numbers.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/train_tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::read_text;
using test::Scratch;
using test::write_text;
namespace fs = std::filesystem;

namespace {

const fs::path tokenizers = fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers";
const auto quiet = [](std::int64_t) {};
const auto quiet_import = [](const ImportProgress&) {};

template <typename T>
void write_bin(const fs::path& file, const std::vector<T>& tokens) {
  write_text(file, {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(T)});
}

ImportOptions import_options(const Scratch& scratch) {
  ImportOptions options;
  options.train = {scratch / "a.bin"};
  options.validation = {scratch / "v.bin"};
  options.output = scratch / "out";
  options.vocab_size = 60000;
  options.end_of_text_id = 0;
  write_bin<std::uint16_t>(scratch / "a.bin", {1, 2, 3, 0, 4, 5, 0});
  write_bin<std::uint16_t>(scratch / "v.bin", {9, 0});
  return options;
}

SupervisedOptions sample_options(const Scratch& scratch) {
  SupervisedOptions options;
  options.inputs = {scratch / "a.jsonl"};
  options.output = scratch / "out";
  options.tokenizer = tokenizers / "gpt2.json";
  options.length = 64;
  options.pack = false;
  options.validation_fraction = 0.3;
  return options;
}

std::string lines(int count) {
  std::string all;
  for (int i = 0; i < count; ++i)
    all += json_dump(nlohmann::json{{"prompt", "What is " + std::to_string(i) + "?"},
                                    {"completion", " An answer."}}) +
           "\n";
  return all;
}

std::vector<std::string> files_of(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("import --force: what fails leaves the old dataset, and its own shards are no input") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  import_tokens(options, quiet_import);
  const auto files = files_of(options.output);
  const auto shard = read_text(options.output / "train-00000.h5");
  options.force = true;
  write_bin<std::uint16_t>(scratch / "a.bin", {1, 0, 60000});
  CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }), "outside the vocabulary"));
  options.train = {options.output / "train-00000.h5"};
  options.dataset = "tokens";
  CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }),
                 "is an input, and has the name of a shard"));
  CHECK(files_of(options.output) == files);
  CHECK(read_text(options.output / "train-00000.h5") == shard);
  write_bin<std::uint16_t>(scratch / "a.bin", {7, 0});
  options.train = {scratch / "a.bin"};
  import_tokens(options, quiet_import);
  CHECK(read_manifest(options.output).tokens(Split::train) == 2);
  CHECK(files_of(options.output) == files);
}

TEST_CASE(
    "samples --force: a bad line leaves the old dataset; another tokenizer's file is not replaced unasked") {
  const Scratch scratch;
  SupervisedOptions options = sample_options(scratch);
  write_text(scratch / "a.jsonl", lines(30));
  prepare_supervised(options, quiet);
  const auto files = files_of(options.output);
  const auto manifest = read_text(options.output / "dataset.json");
  options.force = true;
  write_text(scratch / "a.jsonl", lines(30) + "{\n");
  CHECK(contains(message_of([&] { prepare_supervised(options, quiet); }), "line 31: not JSON"));
  CHECK(files_of(options.output) == files);
  CHECK(read_text(options.output / "dataset.json") == manifest);
  options.force = false;
  options.output = scratch / "other";
  write_text(scratch / "a.jsonl", lines(30));
  write_text(options.output / "tokenizer.json", "mine");
  CHECK(contains(message_of([&] { prepare_supervised(options, quiet); }), "which is another tokenizer"));
  CHECK(read_text(options.output / "tokenizer.json") == "mine");
}

TEST_CASE("a dataset is replaced whole or not at all, whatever ends the replacing") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  options.shard_tokens = 3;  // three shards of training tokens
  import_tokens(options, quiet_import);
  const auto files = files_of(options.output);
  const auto content = [&] {
    std::string all;
    for (const auto& name : files_of(options.output))
      if (fs::is_regular_file(options.output / name)) all += name + read_text(options.output / name);
    return all;
  };
  const auto before = content();
  options.force = true;
  write_bin<std::uint16_t>(scratch / "a.bin", {1, 2, 3, 0, 4, 5, 0, 6, 7, 0, 8, 9, 0});

  // A name that cannot be taken, found before anything moves.
  fs::create_directory(options.output / "train-00003.h5");
  CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }), "train-00003.h5 is a directory"));
  CHECK(content() == before);
  fs::remove(options.output / "train-00003.h5");

  // Killed between two renames: the old manifest and one old shard are aside, one new shard and one of its own number
  // are in place.
  const fs::path aside = options.output / replaced_dataset_name;
  fs::create_directory(aside);
  write_text(aside / "coming.txt", "train-00000.h5\ntrain-00009.h5\ndataset.json\n");
  fs::rename(options.output / manifest_name, aside / manifest_name);
  fs::rename(options.output / "train-00000.h5", aside / "train-00000.h5");
  write_text(options.output / "train-00000.h5", "new");
  write_text(options.output / "train-00009.h5", "new");
  CHECK(contains(message_of([&] { read_manifest(options.output); }), "was killed between two renames"));
  options.force = false;
  CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }), "already holds a dataset"));
  CHECK(content() == before);
  CHECK(files_of(options.output) == files);

  // Killed when the new manifest was in place: nothing is put back.
  fs::create_directory(aside);
  fs::copy_file(options.output / "train-00001.h5", aside / "train-00001.h5");
  options.force = true;
  import_tokens(options, quiet_import);
  CHECK(read_manifest(options.output).tokens(Split::train) == 13);
  CHECK_FALSE(fs::exists(aside));
}

TEST_CASE("shards that no manifest names are not replaced unasked, but those of a killed process are") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  const auto mine = options.output / "train-00007.h5";
  write_text(mine, "mine");
  SupervisedOptions samples = sample_options(scratch);
  write_text(scratch / "a.jsonl", lines(30));
  for (const auto& message : {message_of([&] { import_tokens(options, quiet_import); }),
                              message_of([&] { prepare_supervised(samples, quiet); })}) {
    CHECK(contains(message, mine.string() + " has the name of a shard"));
    CHECK(contains(message, "--force"));
  }
  CHECK(files_of(options.output) == std::vector<std::string>{"train-00007.h5"});
  CHECK(read_text(mine) == "mine");
  fs::remove(mine);

  // Killed before the first manifest of all was in place.
  import_tokens(options, quiet_import);
  const auto whole = files_of(options.output);
  const fs::path aside = options.output / replaced_dataset_name;
  const auto killed = [&](const std::string& coming) {
    fs::remove(options.output / manifest_name);
    fs::create_directory(aside);
    if (!coming.empty()) write_text(aside / "coming.txt", coming);
  };
  std::string names;
  for (const auto& name : whole) names += name + "\n";
  killed(names);
  import_tokens(options, quiet_import);
  CHECK(files_of(options.output) == whole);

  // Killed while files that are no dataset's were replaced, on request: before all were aside, and after.
  fs::remove_all(options.output);
  write_text(options.output / "train-00000.h5", "mine");
  write_text(options.output / "validation-00000.h5", "mine, too");
  fs::create_directory(aside);
  fs::rename(options.output / "train-00000.h5", aside / "train-00000.h5");
  for (const bool all : {false, true}) {
    CAPTURE(all);
    if (all) {
      fs::create_directory(aside);
      for (const char* name : {"train-00000.h5", "validation-00000.h5"})
        fs::rename(options.output / name, aside / name);
      write_text(aside / "coming.txt", names);
      write_text(options.output / "train-00000.h5", "ours");
    }
    CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }), "has the name of a shard"));
    CHECK(read_text(options.output / "train-00000.h5") == "mine");
    CHECK(read_text(options.output / "validation-00000.h5") == "mine, too");
    CHECK_FALSE(fs::exists(aside));
  }
  // All in place, and what was replaced not yet removed.
  options.force = true;
  import_tokens(options, quiet_import);
  fs::create_directory(aside);
  write_text(aside / "train-00000.h5", "mine");
  write_text(aside / "coming.txt", names);
  options.force = false;
  CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }), "already holds"));
  CHECK(files_of(options.output) == whole);
  CHECK(read_text(options.output / "train-00000.h5") != "mine");
}

TEST_CASE("samples and import: a tokenizer that is a pipe, or that changes meanwhile, is named") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  SupervisedOptions samples = sample_options(scratch);
  write_text(scratch / "a.jsonl", lines(30));
  const auto pipe = scratch / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  options.tokenizer = samples.tokenizer = pipe;
  for (const auto& message : {message_of([&] { import_tokens(options, quiet_import); }),
                              message_of([&] { prepare_supervised(samples, quiet); })}) {
    CHECK(contains(message, pipe.string() + ": is a pipe or a device"));
  }
  const auto file = scratch / "t.json";
  const std::string whole = read_text(tokenizers / "gpt2.json");
  options.tokenizer = samples.tokenizer = file;
  write_text(file, whole);
  const auto change = [&](std::int64_t) { write_text(file, whole + " "); };
  CHECK(contains(message_of([&] { prepare_supervised(samples, change); }),
                 file.string() + ": was changed meanwhile"));
  write_text(file, whole);
  CHECK(contains(message_of([&] { import_tokens(options, [&](const ImportProgress&) { change(0); }); }),
                 file.string() + ": was changed meanwhile"));
  CHECK_FALSE(fs::exists(options.output));
}

TEST_CASE("import and samples are refused where prepare is at work") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  SupervisedOptions samples = sample_options(scratch);
  write_text(scratch / "a.jsonl", lines(30));
  fs::create_directories(options.output);
  {
    const FileLock prepare = lock_output(options.output);
    CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }), "is at work here"));
    CHECK(contains(message_of([&] { prepare_supervised(samples, quiet); }), "is at work here"));
    CHECK(files_of(options.output).size() == 1);
  }
  CHECK(files_of(options.output).empty());
  import_tokens(options, quiet_import);
}

TEST_CASE("two writers of one small file leave the whole of one of them") {
  const Scratch scratch;
  const std::string texts[] = {std::string(300'000, 'a'), std::string(200'000, 'b')};
  const auto write = [&](const std::string& text) {
    for (int i = 0; i < 50; ++i) write_whole_file(scratch / "x", text);
  };
  std::thread other([&] { write(texts[0]); });
  write(texts[1]);
  other.join();
  const auto left = read_text(scratch / "x");
  CHECK((left == texts[0] || left == texts[1]));
  CHECK(files_of(scratch.path()).size() == 1);
}

TEST_CASE("import: files of other kinds are named, and widths that cannot be are refused") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  const auto message = [&] { return message_of([&] { import_tokens(options, quiet_import); }); };
  const auto head = [&](std::string bytes) {
    bytes.resize(2048, '\0');
    write_text(scratch / "a.bin", bytes);
    return message();
  };
  CHECK(contains(head("\x93NUMPY\x01"), "a NumPy array (.npy)"));
  CHECK(contains(head("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"));
  CHECK(contains(head("\x89HDF\r\n\x1a\n"), "rename it to .h5"));
  CHECK(contains(head(std::string("\x1f\x8b\x08\0", 4)), "packed by gzip"));
  CHECK(contains(head("\x28\xb5\x2f\xfd"), "packed by zstd"));
  std::int32_t magic = 20240520;
  CHECK(contains(head({reinterpret_cast<const char*>(&magic), 4}),
                 "a token file of llm.c with its header of 1024 bytes"));
  write_bin<std::int32_t>(scratch / "a.bin", {magic});  // too short for the header
  CHECK_FALSE(contains(message(), "llm.c"));
  std::filesystem::remove_all(options.output);
  write_text(scratch / "a.bin", test::prose(1, 200) + " ");
  CHECK(contains(message(), "is text, not tokens"));

  std::vector<std::uint32_t> wide;
  for (std::uint32_t i = 0; i < 1000; ++i) wide.push_back(i % 50 == 49 ? 0 : 100 + i);
  write_bin(scratch / "a.bin", wide);
  CHECK(contains(message(), "give --bin-bytes 4"));
  options.bin_bytes = 2;  // stated: a warning
  const auto stated = import_tokens(options, quiet_import);
  REQUIRE(!stated.warnings.empty());
  CHECK(contains(stated.warnings.front(), "give --bin-bytes 4"));
  options.force = true;
  options.vocab_size = 100'000;
  CHECK(contains(message(), "cannot hold the ids of a vocabulary of 100000"));
  options.vocab_size = 60000;
  options.bin_bytes = 0;
  write_bin(scratch / "a.bin", std::vector<std::int64_t>(wide.begin(), wide.end()));
  CHECK(contains(message(), "give --bin-bytes 8"));
  write_bin<std::uint16_t>(scratch / "a.bin", {1, 2, 3});
  CHECK(contains(import_tokens(options, quiet_import).warnings.at(0),
                 "none of its 3 tokens is the end-of-text token"));
}

TEST_CASE("import: HDF5 that would give fill values, groups, and filters that are not there") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  options.train = {scratch / "a.h5"};
  const auto message = [&] { return message_of([&] { import_tokens(options, quiet_import); }); };
  const hsize_t size = 100;
  const auto make = [&](const char* name, const auto& set) {
    const hid_t file = H5Fcreate((scratch / "a.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    set(create, space);
    const hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    const hid_t dataset = H5Dcreate2(file, name, H5T_STD_U16LE, space, links, create, H5P_DEFAULT);
    CHECK(dataset >= 0);
    H5Dclose(dataset);
    H5Pclose(links);
    H5Pclose(create);
    H5Sclose(space);
    H5Fclose(file);
  };
  make("t", [](hid_t, hid_t) {});
  CHECK(contains(message(), "was never written"));
  make("t", [](hid_t create, hid_t) {
    const hsize_t chunk = 30;
    H5Pset_chunk(create, 1, &chunk);
  });
  CHECK(contains(message(), "4 of its 4 chunks are missing"));
  make("t", [&](hid_t create, hid_t) { H5Pset_external(create, (scratch / "raw").c_str(), 0, 200); });
  CHECK(contains(message(), "raw, which cannot be found"));
  write_text(scratch / "raw", std::string(199, 'a'));
  CHECK(contains(message(), "has 199 bytes where 200 are wanted"));
  make("t", [](hid_t create, hid_t space) { H5Pset_virtual(create, space, "source.h5", "s", space); });
  CHECK(contains(message(), "source.h5, is missing"));
  make("group/deep/t", [](hid_t, hid_t) {});
  CHECK(contains(message(), "\"group/deep/t\" was never written"));  // the only one, found
  options.dataset = "group";
  CHECK(contains(message(), "\"group\" is a group, not a dataset; there are: group/deep/t"));
  options.dataset = "none";
  CHECK(contains(message(), "has no dataset \"none\"; there are: group/deep/t"));
}

TEST_CASE(
    "import: an HDF5 virtual dataset is read where its sources are there; a filter that is missing is "
    "named") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  const hsize_t size = 6;
  const std::vector<std::uint16_t> tokens = {5, 6, 0, 7, 8, 0};
  const auto make = [&](const char* file_name, const auto& set, bool write) {
    const hid_t file = H5Fcreate((scratch / file_name).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    set(create, space);
    const hid_t dataset = H5Dcreate2(file, "t", H5T_STD_U16LE, space, H5P_DEFAULT, create, H5P_DEFAULT);
    if (write) CHECK(H5Dwrite(dataset, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens.data()) >= 0);
    H5Dclose(dataset);
    H5Pclose(create);
    H5Sclose(space);
    H5Fclose(file);
  };
  make(
      "source.h5", [](hid_t, hid_t) {}, true);
  make(
      "a.h5",
      [&](hid_t create, hid_t space) {
        H5Pset_virtual(create, space, (scratch / "source.h5").c_str(), "t", space);
      },
      false);
  options.train = {scratch / "a.h5"};
  import_tokens(options, quiet_import);
  const Manifest manifest = read_manifest(options.output);
  std::vector<std::int32_t> read(6);
  TokenStream(options.output, manifest, Split::train).read(0, read);
  CHECK(std::equal(read.begin(), read.end(), tokens.begin()));
  const hsize_t more = 7;
  make(
      "a.h5",
      [&](hid_t create, hid_t space) {
        H5Sset_extent_simple(space, 1, &more, nullptr);
        H5Pset_virtual(create, space, (scratch / "source.h5").c_str(), "t", space);
      },
      false);
  options.force = true;
  CHECK(contains(message_of([&] { import_tokens(options, quiet_import); }),
                 "has 6 elements where 7 are wanted"));

  H5Z_class2_t filter{};
  filter.version = H5Z_CLASS_T_VERS;
  filter.id = 300;  // of the range for tests
  filter.encoder_present = filter.decoder_present = 1;
  filter.name = "made up";
  filter.filter = [](unsigned, std::size_t, const unsigned*, std::size_t bytes, std::size_t*, void**) {
    return bytes;
  };
  REQUIRE(H5Zregister(&filter) >= 0);
  make(
      "b.h5",
      [&](hid_t create, hid_t) {
        H5Pset_chunk(create, 1, &size);
        H5Pset_filter(create, filter.id, H5Z_FLAG_MANDATORY, 0, nullptr);
      },
      true);
  REQUIRE(H5Zunregister(filter.id) >= 0);
  options.train = {scratch / "b.h5"};
  options.force = true;
  const auto message = message_of([&] { import_tokens(options, quiet_import); });
  CHECK(contains(message, "is packed by the filter \"made up\" (number 300)"));
  CHECK(contains(message, "h5repack"));
}

TEST_CASE("samples: tokens of prompt and completion decode to them, and apart only where that is asked for") {
  const Scratch trained;  // a SentencePiece model of the words below
  write_text(trained / "tokenizer.model",
             train_tokenizer({.vocab_size = 400, .line_share = 1}, [left = 3](std::string& text) mutable {
               text = test::prose(static_cast<unsigned>(left), 3000) + " The capital is Paris.\n";
               return left-- > 0;
             }));
  for (const fs::path& file : {tokenizers / "gpt2.json", trained / "tokenizer.model"}) {
    CAPTURE(file.string());
    const Tokenizer tokenizer(file);
    for (const Encode encode : {Encode::together, Encode::apart}) {
      const Scratch scratch;
      SupervisedOptions options = sample_options(scratch);
      options.encode = encode;
      options.tokenizer = file;
      options.validation_fraction = 0.5;
      std::string all;
      for (int i = 0; i < 20; ++i)
        all += json_dump(nlohmann::json{{"prompt", std::to_string(i) + " The capital is Par"},
                                        {"completion", "is"}}) +
               "\n";
      write_text(scratch / "a.jsonl", all);
      const Manifest manifest = prepare_supervised(options, quiet).manifest;
      CHECK(read_manifest(options.output).encode == to_string(encode));
      const SampleShardReader shard(options.output / manifest.train.front().file);
      std::vector<std::int32_t> inputs(64);
      std::vector<std::int32_t> labels(64);
      shard.read(0, inputs, labels);
      const auto end = std::find(inputs.begin(), inputs.end(), tokenizer.end_of_text());
      const std::vector<std::int32_t> tokens(inputs.begin(), end);
      const std::string text = tokenizer.decode(tokens);
      // SentencePiece puts a blank before each text that is encoded by its own.
      const bool blank = encode == Encode::apart && file.extension() == ".model";
      CHECK(text.ends_with(blank ? " The capital is Par is" : " The capital is Paris"));
      std::vector<std::int32_t> whole;
      tokenizer.encode(text, whole);
      std::vector<std::int32_t> counted;
      for (const auto label : labels) {
        if (label >= 0) counted.push_back(label);
      }
      CHECK(counted.back() == tokenizer.end_of_text());
      counted.pop_back();
      if (encode == Encode::together) CHECK(tokens == whole);
      CHECK(tokenizer.decode(counted).ends_with("is"));
    }
  }
}

TEST_CASE("samples: numbers that 32 bits do not hold; one sample in one split; a length below the prompts'") {
  const Scratch scratch;
  SupervisedOptions options = sample_options(scratch);
  const auto message = [&] { return message_of([&] { prepare_supervised(options, quiet); }); };
  for (const char* number : {"4294967297", "-4294967197", "18446744073709551615"}) {
    write_text(scratch / "a.jsonl",
               std::string("{\"tokens\": [1, ") + number + "], \"labels\": [1, -100]}\n");
    CHECK(
        contains(message(), std::string("\"tokens\" holds ") + number + ", which no token's number can be"));
    write_text(scratch / "a.jsonl", std::string("{\"tokens\": [1, 2], \"labels\": [1, ") + number + "]}\n");
    CHECK(contains(message(), std::string("\"labels\" holds ") + number));
  }
  std::string once;
  std::string twice;
  for (int i = 0; i < 40; ++i) {
    const std::string body = "\"prompt\": \"Say " + std::to_string(i) + "\", \"completion\": \" yes\"}";
    once += "{" + body + "\n";
    twice += "{\"id\": 1, " + body + "\r\n{\"id\": 2,   " + body + "\n";
  }
  write_text(scratch / "a.jsonl", once);
  const Manifest single = prepare_supervised(options, quiet).manifest;
  options.force = true;
  write_text(scratch / "a.jsonl", twice);
  const Manifest both = prepare_supervised(options, quiet).manifest;
  CHECK(both.documents(Split::train) == 2 * single.documents(Split::train));
  CHECK(both.documents(Split::validation) == 2 * single.documents(Split::validation));
  options.length = 1;
  CHECK(contains(message(), "--sequence-length 1: no line has a label within 1 input"));
  CHECK(contains(message(), "keeps all lines whole"));
}

TEST_CASE(
    "datasets: the checksum of a split is of its order, not of its shards; damage and swapped shards are "
    "found") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  write_bin<std::uint16_t>(scratch / "a.bin", {1, 2, 0, 3, 4, 0, 5, 6, 0});
  options.shard_tokens = 3;
  const Manifest cut = import_tokens(options, quiet_import).manifest;
  CHECK(cut.train.size() == 3);
  CHECK(verify_dataset(options.output, read_manifest(options.output), quiet).empty());
  fs::rename(options.output / "train-00000.h5", scratch / "kept");
  fs::rename(options.output / "train-00001.h5", options.output / "train-00000.h5");
  fs::rename(scratch / "kept", options.output / "train-00001.h5");
  const auto wrong = verify_dataset(options.output, read_manifest(options.output), quiet);
  REQUIRE(wrong.size() == 2);
  CHECK(contains(wrong[0], "were shards swapped?"));
  options.force = true;
  options.shard_tokens = 100;
  const Manifest whole = import_tokens(options, quiet_import).manifest;
  CHECK(whole.train.size() == 1);
  REQUIRE(whole.crc32(Split::train));
  CHECK(whole.crc32(Split::train) == cut.crc32(Split::train));
  write_bin<std::uint16_t>(scratch / "a.bin", {3, 4, 0, 1, 2, 0, 5, 6, 0});
  const Manifest other = import_tokens(options, quiet_import).manifest;
  CHECK(other.tokens(Split::train) == whole.tokens(Split::train));
  CHECK(other.crc32(Split::train) != whole.crc32(Split::train));
  std::string bytes = read_text(options.output / "train-00000.h5");
  const std::string tokens("\3\0\4\0\0\0\1\0", 8);
  REQUIRE(bytes.find(tokens) != std::string::npos);
  bytes[bytes.find(tokens)] = 2;
  write_text(options.output / "train-00000.h5", bytes);
  const auto damaged = verify_dataset(options.output, read_manifest(options.output), quiet);
  REQUIRE(damaged.size() == 1);
  CHECK(contains(damaged[0], "train-00000.h5"));
}

TEST_CASE("token numbers: as text and back, and what is none is named") {
  CHECK(to_text({1, 20, 3}) == "1 20 3");
  CHECK(parse_tokens(" 1, 20\n[3]", 21) == std::vector<std::int32_t>{1, 20, 3});
  CHECK(contains(message_of([] { parse_tokens("1 x", 9); }), "token 2: \"x\" is no number"));
  CHECK(contains(message_of([] { parse_tokens("1 9", 9); }), "token 2: 9 is outside the vocabulary of 9"));
  CHECK(contains(message_of([] { parse_tokens("99999999999", 9); }), "token 1: 99999999999 is outside"));
}

TEST_CASE("a dataset's manifest with a NUL byte, at which a parser may end, is refused") {
  const Scratch scratch;
  ImportOptions options = import_options(scratch);
  import_tokens(options, quiet_import);
  const auto text = read_text(options.output / manifest_name);
  for (const auto& changed :
       {text + '\0', text + std::string("\0{}", 3), text.substr(0, 20) + '\0' + text.substr(20)}) {
    write_text(options.output / manifest_name, changed);
    const auto message = message_of([&] { read_manifest(options.output); });
    CAPTURE(message);
    CHECK(contains(message, (options.output / manifest_name).string() + ": not JSON"));
  }
}
