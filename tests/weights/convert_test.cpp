// Conversions among the formats: every element bit for bit, types, part files, shards; what is refused; nothing half
// written.
#include "lib/weights/convert.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/files/file_lock.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/model/mixers.h"
#include "lib/model/parameters.h"
#include "lib/weights/native_source.h"
#include "lib/weights/safetensors_header.h"
#include "lib/weights/tensor_file.h"
#include "tests/weights/support.h"

using namespace ratplus;
using checkpoint::Kind;
using checkpoint::StoredType;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

namespace {

void convert(const fs::path& from, const fs::path& to, const weights::ExportOptions& options = {}) {
  weights::convert(*weights::open_source(from, test::small_model), to, options);
}

int wrong_in(const fs::path& path) {
  return test::wrong_elements(*weights::open_source(path));  // nothing is assumed: the files say it
}

/// A checkpoint with an optimizer's state, of which every element is known: element i of a unit's kind k is i + k / 4.
void write_whole_checkpoint(const fs::path& directory, int parts) {
  checkpoint::Info info{.directory = directory,
                        .model = test::small_model,
                        .step = 7,
                        .updates = 14,
                        .tokens = 99,
                        .job = "j",
                        .tokenizer = "t",
                        .parts = parts};
  fs::create_directories(directory);
  for (int part = 0; part < parts; ++part) {
    checkpoint::write_part(directory, info, part, model::unit_layouts(info.model),
                           [](Kind kind, std::size_t, parallel::UnitRange range, std::span<float> out) {
                             for (std::size_t i = 0; i < out.size(); ++i)
                               out[i] = static_cast<float>(range.begin + static_cast<std::int64_t>(i)) +
                                        static_cast<float>(kind) / 4;
                           });
    info.files.push_back(checkpoint::measure(directory / checkpoint::file_name(part)));
  }
  checkpoint::write_manifest(directory, info);
}

int wrong_state(weights::NativeSource& source, const std::vector<Kind>& kinds) {
  int wrong = 0;
  for (const auto kind : kinds) {
    for (std::size_t u = 0; u < source.units().size(); ++u) {
      std::vector<float> all(static_cast<std::size_t>(source.units()[u].numel));
      source.read_state(kind, u, {0, source.units()[u].numel}, all.data());
      for (std::size_t i = 0; i < all.size(); ++i)
        wrong += all[i] != static_cast<float>(i) + static_cast<float>(kind) / 4;
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("pth to checkpoint to safetensors to pth, and by way of shards: every element, and what is known") {
  const test::ScratchDirectory scratch;
  for (const char* stored : {"task_bfloat16.pth", "bare_float16.pth"}) {
    CAPTURE(std::string(stored));
    const auto at = scratch / stored;
    fs::create_directories(at);
    convert(test::stored(stored), at / "native", {.parts = 3, .tokenizer = "sentencepiece:x"});
    convert(at / "native", at / "one.safetensors");
    convert(at / "one.safetensors", at / "m.safetensors.index.json", {.shard_bytes = 3000});
    convert(at / "m.safetensors.index.json", at / "back.pth");
    for (const char* each : {"native", "one.safetensors", "m.safetensors.index.json", "back.pth"}) {
      CAPTURE(std::string(each));
      CHECK(wrong_in(at / each) == 0);
      const auto source = weights::open_source(at / each);
      CHECK(source->info().tokenizer == "sentencepiece:x");
      CHECK(source->info().model.head_dim == 4);
      CHECK(source->stored_type(0, 0) == StoredType::float32);  // a checkpoint's, from there on
    }
    CHECK(checkpoint::read_info(at / "native").parts == 3);
    CHECK(!checkpoint::read_info(at / "native").optimizer);
    CHECK(fs::exists(at / "m-00003-of-00003.safetensors"));
  }
}

TEST_CASE("types stay as they are, or become what is asked for") {
  const test::ScratchDirectory scratch;
  const auto pth = test::stored("task_bfloat16.pth");
  convert(pth, scratch / "same.safetensors");
  CHECK(weights::open_source(scratch / "same.safetensors")->stored_type(1, 0) == StoredType::bfloat16);
  for (const auto type : {StoredType::float16, StoredType::bfloat16, StoredType::float32}) {
    const std::string name = to_string(type);
    convert(pth, scratch / (name + ".pth"), {.type = type});
    convert(scratch / (name + ".pth"), scratch / name, {.type = type, .parts = 2});
    for (const auto& made : {scratch / (name + ".pth"), scratch / name}) {
      CHECK(weights::open_source(made)->stored_type(1, 2) == type);
      CHECK(wrong_in(made) == 0);
    }
  }
  CHECK(fs::file_size(scratch / "float16" / "part-00000.h5") <
        fs::file_size(scratch / "float32" / "part-00000.h5"));
}

TEST_CASE("a whole checkpoint into another number of files, with the optimizer's state, and without it") {
  const test::ScratchDirectory scratch;
  write_whole_checkpoint(scratch / "two", 2);
  convert(scratch / "two", scratch / "five", {.parts = 5});
  weights::NativeSource five(scratch / "five");
  CHECK(wrong_state(five, {Kind::weights, Kind::first_moment, Kind::second_moment}) == 0);
  CHECK(five.info().step == 7);
  CHECK(five.info().updates == 14);
  CHECK(five.info().job == "j");
  convert(scratch / "five", scratch / "weights", {.weights_only = true});
  weights::NativeSource alone(scratch / "weights");
  CHECK(wrong_state(alone, {Kind::weights}) == 0);
  CHECK(!alone.info().optimizer);
  CHECK(contains(message_of([&] { wrong_state(alone, {Kind::first_moment}); }), "no group \"first_moment\""));
}

TEST_CASE("values that a type cannot hold are refused with the parameter's name, and nothing is left") {
  const test::ScratchDirectory scratch;
  write_whole_checkpoint(scratch / "large",
                         1);  // up to 912: below 65504, so larger ones by way of safetensors
  const auto source = weights::open_source(scratch / "large");
  convert(scratch / "large", scratch / "x.safetensors");
  auto bytes = read_whole_file(scratch / "x.safetensors");
  const float huge = 1e6f;
  std::memcpy(bytes.data() + bytes.size() - 4, &huge, 4);  // the last element of the final norm
  write_whole_file(scratch / "x.safetensors", bytes);
  const auto before = scratch.files();
  for (const char* made : {"half.pth", "half.safetensors", "half"}) {
    const auto message = message_of(
        [&] { convert(scratch / "x.safetensors", scratch / made, {.type = StoredType::float16}); });
    CHECK(contains(message, "beyond what float16 can hold"));
    CHECK(scratch.files() == before);
  }
}

TEST_CASE("an existing destination is kept, and replaced when asked to") {
  const test::ScratchDirectory scratch;
  const auto pth = test::stored("task_bfloat16.pth");
  for (const char* name : {"a.pth", "a.safetensors", "a.safetensors.index.json", "native"}) {
    CAPTURE(std::string(name));
    convert(pth, scratch / name);
    CHECK(contains(message_of([&] { convert(pth, scratch / name); }), "--force"));
    convert(pth, scratch / name, {.force = true});
    CHECK(wrong_in(scratch / name) == 0);
    CHECK(contains(message_of([&] { convert(scratch / name, scratch / name, {.force = true}); }),
                   "the source of the conversion"));
  }
}

TEST_CASE("work that is ended in the middle leaves nothing") {
  struct Stop {};
  const test::ScratchDirectory scratch;
  for (const char* name : {"a.pth", "a.safetensors", "a.safetensors.index.json", "native"}) {
    int left = 3;
    const weights::ExportOptions options{.parts = 2, .shard_bytes = 1000, .progress = [&](std::int64_t) {
                                           if (--left == 0) throw Stop{};
                                         }};
    CHECK_THROWS_AS(convert(test::stored("task_bfloat16.pth"), scratch / name, options), Stop);
    CHECK(scratch.files().empty());
  }
}

TEST_CASE("progress adds up to what was announced") {
  const test::ScratchDirectory scratch;
  write_whole_checkpoint(scratch / "native", 2);
  for (const char* name : {"a.pth", "a.safetensors", "a.safetensors.index.json", "other"}) {
    std::int64_t told = 0;
    const weights::ExportOptions options{.progress = [&](std::int64_t bytes) { told += bytes; }};
    const auto source = weights::open_source(scratch / "native");
    const auto announced = weights::bytes_to_read(*source, scratch / name, options);
    weights::convert(*source, scratch / name, options);
    CHECK(told == announced);
  }
}

TEST_CASE("other models and damaged safetensors are refused") {
  const test::ScratchDirectory scratch;
  const auto file = scratch / "x.safetensors";
  convert(test::stored("task_bfloat16.pth"), file);
  const auto whole = read_whole_file(file);
  const auto changed = [&](const std::string& what, const std::string& by) {
    auto bytes = whole;
    REQUIRE(what.size() == by.size());
    REQUIRE(contains(bytes, what));
    bytes.replace(bytes.find(what), what.size(), by);
    write_whole_file(file, bytes);
    return message_of([&] { weights::open_source(file, test::small_model); });
  };
  CHECK(contains(changed("backbone.ln.weight", "backbone.ln.WEIGHT"), "has no backbone.ln.weight"));
  CHECK(contains(changed("\"shape\":[8,32]", "\"shape\":[32,8]"), "fc2.weight is [32, 8]"));
  CHECK(contains(changed("\"shape\":[8,32]", "\"shape\":[8,31]"), "does not fit its bytes"));
  CHECK(contains(changed("BF16", "BF17"), "unknown type \"BF17\"; weights may be F32, F16 or BF16"));
  CHECK(!contains(changed("BF16", "BF17"), "damaged"));
  CHECK(contains(changed("\"data_offsets\":[0,160]", "\"data_offsets\":[1,161]"), "begins at byte"));
  CHECK(contains(changed("{\"__metadata__\"", "(\"__metadata__\""), "neither a file of PyTorch's"));
  write_whole_file(file, whole.substr(0, whole.size() - 1));
  CHECK(contains(message_of([&] { weights::open_source(file); }), "cut short"));
  write_whole_file(file, whole.substr(0, 40));
  CHECK(contains(message_of([&] { weights::open_source(file); }), "cut short"));
}

TEST_CASE("an index whose files are missing, changed or elsewhere") {
  const test::ScratchDirectory scratch;
  const auto index = scratch / "m.safetensors.index.json";
  convert(test::stored("task_bfloat16.pth"), index, {.shard_bytes = 2000});
  const auto text = read_whole_file(index);
  const auto with = [&](const std::string& what, const std::string& by) {
    auto bytes = text;
    bytes.replace(bytes.find(what), what.size(), by);
    write_whole_file(index, bytes);
    return message_of([&] { weights::open_source(index); });
  };
  CHECK(contains(with("m-00001", "../m-00001"), "no file beside it"));
  CHECK(contains(with("m-00002", "m-00003"), "does not list there"));
  CHECK(contains(with("{", "["), "no index"));
  write_whole_file(index, text);
  CHECK(wrong_in(scratch.path()) == 0);  // the directory stands for its index
  fs::remove(scratch / "m-00002-of-00002.safetensors");
  CHECK(contains(message_of([&] { weights::open_source(index); }), "m-00002-of-00002.safetensors"));
}

TEST_CASE("a replacing of several files that ends between them leaves no index over old and new ones") {
  const test::ScratchDirectory scratch;
  const auto index = scratch / "m.safetensors.index.json";
  const auto pth = test::stored("task_bfloat16.pth");
  convert(pth, index, {.shard_bytes = 2000});
  fs::remove(scratch / "m-00002-of-00002.safetensors");
  fs::create_directory(scratch / "m-00002-of-00002.safetensors");  // no file gets this name
  CHECK(contains(message_of([&] { convert(pth, index, {.shard_bytes = 2000, .force = true}); }),
                 "m-00002-of-00002.safetensors"));
  CHECK_FALSE(fs::exists(index));
  CHECK(scratch.files() ==
        std::vector<std::string>{"m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"});
  fs::remove(scratch / "m-00002-of-00002.safetensors");
  convert(pth, index, {.shard_bytes = 2000, .force = true});
  CHECK(wrong_in(index) == 0);
}

TEST_CASE("two indexes in one directory: neither is taken by chance") {
  const test::ScratchDirectory scratch;
  convert(test::stored("task_bfloat16.pth"), scratch / "a.safetensors.index.json", {.shard_bytes = 2000});
  convert(test::stored("task_bfloat16.pth"), scratch / "b.safetensors.index.json", {.shard_bytes = 2000});
  const auto message = message_of([&] { weights::open_source(scratch.path()); });
  CHECK(contains(message, "2 indexes of safetensors (a.safetensors.index.json, b.safetensors.index.json)"));
  CHECK(wrong_in(scratch / "b.safetensors.index.json") == 0);
}

TEST_CASE("names of wrapped modules: components of wrappers before a name and inside it are passed over") {
  CHECK(weights::without_wrappers("_orig_mod.module.backbone.layers.0._orig_mod.ln1.weight") ==
        "backbone.layers.0.ln1.weight");
  CHECK(weights::without_wrappers("backbone.module_list.0.module") == "backbone.module_list.0.module");
  const test::ScratchDirectory scratch;
  convert(test::stored("task_bfloat16.pth"), scratch / "plain.safetensors");
  const auto bytes = read_whole_file(scratch / "plain.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const auto data_bytes = static_cast<std::int64_t>(bytes.size() - 8 - length);
  const auto write = [&](auto&& rename) {
    auto header =
        weights::parse_safetensors_header(std::string_view(bytes).substr(8, length), data_bytes, "x");
    for (auto& entry : header.entries) entry.tensor.name = rename(entry.tensor.name);
    write_whole_file(scratch / "wrapped.safetensors",
                     weights::write_safetensors_header(header) + bytes.substr(8 + length));
  };
  write([](std::string name) {
    const std::string layer = "backbone.layers.0.";
    if (name.starts_with(layer)) name.insert(layer.size(), "_orig_mod._checkpoint_wrapped_module.");
    return "module._orig_mod." + name;
  });
  CHECK(wrong_in(scratch / "wrapped.safetensors") == 0);
  // Two names of one parameter: neither is taken by chance.
  write([](const std::string& name) {
    return name == "backbone.ln.weight" ? "module.embedding.wte.weight" : name;
  });
  CHECK(contains(message_of([&] { weights::open_source(scratch / "wrapped.safetensors"); }),
                 "holds embedding.wte.weight twice, as"));
}

TEST_CASE("a second conversion to the same place is refused, and no lock stays behind") {
  const test::ScratchDirectory scratch;
  const auto pth = test::stored("task_bfloat16.pth");
  const auto to = scratch / "x.safetensors";
  {
    const FileLock first(scratch / ".x.safetensors.lock", to, "conversion", FileLock::After::remove);
    CHECK(contains(message_of([&] { convert(pth, to); }), "another conversion is at work here"));
    CHECK_FALSE(fs::exists(to));
  }
  convert(pth, to);
  CHECK(wrong_in(to) == 0);
  CHECK(std::distance(fs::directory_iterator(scratch.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("directories above a destination are made; a suffix that stands for no format is refused") {
  const test::ScratchDirectory scratch;
  const auto pth = test::stored("task_bfloat16.pth");
  for (const char* name : {"a/b/x.pth", "c/d/x.safetensors", "e/f/x.safetensors.index.json", "g/h/native",
                           "i/run-0.2", "j/named.v2/"}) {
    CAPTURE(std::string(name));
    convert(pth, scratch / name);
    CHECK(wrong_in(scratch / name) == 0);
  }
  for (const char* name : {"x.gguf", "k/x.safetensor", "x.PTH", "x.h5"}) {
    CAPTURE(std::string(name));
    const auto message = message_of([&] { convert(pth, scratch / name); });
    CHECK(contains(message, "is no format that can be written; a name ends in .pth, .pt or .bin (PyTorch)"));
    CHECK(!fs::exists(scratch / name));
  }
  CHECK(!fs::exists(scratch / "k"));
  write_whole_file(scratch / "file", "x");
  CHECK(contains(message_of([&] { convert(pth, scratch / "file/below/x.pth"); }),
                 "cannot make this directory"));
}

TEST_CASE("head_dim is needed where it cannot be seen") {
  const auto message = message_of([] { weights::open_source(test::stored("task_bfloat16.pth")); });
  CHECK(contains(message, "width of 8"));
  CHECK(contains(message, "--head-dim"));
}

namespace {

using model::MixerConfig;
using model::MixerKind;

/// A checkpoint of a model with these mixers, each element of its weights known: its index in its unit.
model::ModelConfig write_family(const fs::path& directory, std::int64_t kv_heads,
                                std::vector<MixerConfig> mixers) {
  model::ModelConfig config = test::small_model;
  config.layers = 4, config.width = 16, config.kv_heads = kv_heads, config.mixers = std::move(mixers);
  config.repeat_mixers();
  checkpoint::Info info{.directory = directory, .model = config, .parts = 1};
  fs::create_directories(directory);
  checkpoint::write_part(directory, info, 0, model::unit_layouts(config),
                         [](Kind, std::size_t, parallel::UnitRange range, std::span<float> out) {
                           for (std::size_t i = 0; i < out.size(); ++i)
                             out[i] =
                                 static_cast<float>(range.begin + static_cast<std::int64_t>(i)) + 1.0F / 1024;
                         });
  info.files.push_back(checkpoint::measure(directory / checkpoint::file_name(0)));
  checkpoint::write_manifest(directory, info);
  return config;
}

/// Has a file say no more than the tensors of one from elsewhere do.
void without_description(const fs::path& safetensors) {
  auto bytes = read_whole_file(safetensors);
  const auto at = bytes.find("\"ratplus\"");
  REQUIRE(at != std::string::npos);
  bytes.replace(at, 9, "\"nothing\"");
  write_whole_file(safetensors, bytes);
}

const MixerConfig rat{.kind = MixerKind::rat, .chunk = 6, .groups = 2};
const MixerConfig local{.kind = MixerKind::local_attention, .window = 5};

}  // namespace

TEST_CASE(
    "models of the RAT family go to every format and back, and say what they are where the format can") {
  const test::ScratchDirectory scratch;
  const auto config = write_family(scratch / "a", 0, {rat, local});
  CHECK(config.mixers == std::vector{rat, local, rat, local});
  convert(scratch / "a", scratch / "a.safetensors");
  CHECK(weights::open_source(scratch / "a.safetensors")->info().model == config);
  convert(scratch / "a", scratch / "a.pth");
  CHECK(weights::open_source(scratch / "a.pth")->info().model == config);
  without_description(scratch / "a.safetensors");
  model::ModelConfig assumed = test::small_model;
  CHECK(contains(message_of([&] { weights::open_source(scratch / "a.safetensors", assumed); }),
                 "layer 0 has 64 rows in in_proj, and a gate_bias, which does not tell the mixer or its "
                 "sizes; say which "
                 "it is: `ratplus convert --mixer '{ kind = \"rat\", chunk = L, groups = 2 }'`"));
  assumed.mixers = {rat};
  CHECK(contains(message_of([&] { weights::open_source(scratch / "a.safetensors", assumed); }),
                 "layer 1 has 48 rows in in_proj, no gate_bias"));
  assumed.mixers = {rat, local};
  const auto source = weights::open_source(scratch / "a.safetensors", assumed);
  CHECK(source->info().model == config);
  const auto original = weights::open_source(scratch / "a");
  const auto parameters = weights::parameters_of(*original, {});
  REQUIRE(weights::parameters_of(*source, {}).size() == parameters.size());
  for (const auto& parameter : parameters) {
    CAPTURE(parameter.name);
    CHECK(test::elements_of(*source, parameter) == test::elements_of(*original, parameter));
  }
}

TEST_CASE("the biases of gates stay float32 in files of another type") {
  const test::ScratchDirectory scratch;
  write_family(scratch / "a", 0, {{.kind = MixerKind::rnn, .memory = 4096}});
  convert(scratch / "a", scratch / "a.safetensors", {.type = StoredType::bfloat16});
  convert(scratch / "a", scratch / "a.pth", {.type = StoredType::bfloat16});
  convert(scratch / "a", scratch / "checkpoint", {.type = StoredType::bfloat16});
  without_description(scratch / "a.safetensors");
  for (const char* name : {"a.safetensors", "a.pth", "checkpoint"}) {
    CAPTURE(std::string(name));
    const auto source =
        weights::open_source(scratch / name, test::small_model);  // 3d rows and a bias: an rnn
    CHECK(source->info().model.distinct_mixers() ==
          std::vector{MixerConfig{.kind = MixerKind::rnn, .memory = 4096}});
    CHECK(source->stored_type(1, 1) == StoredType::bfloat16);
    CHECK(source->stored_type(5, 0) == StoredType::float32);
    for (const auto& parameter : weights::parameters_of(*source, {})) {
      if (!parameter.name.ends_with("layers.1.seq_layer.gate_bias")) continue;
      CHECK(test::elements_of(*source, parameter)[3] == 64 + 3 + 1.0F / 1024);
    }
  }
}

TEST_CASE("shared keys are in no tensor, and are given") {
  const test::ScratchDirectory scratch;
  const auto config = write_family(scratch / "a", 2, {{MixerKind::ratplus}});
  convert(scratch / "a", scratch / "a.safetensors");
  without_description(scratch / "a.safetensors");
  auto assumed = test::small_model;
  assumed.kv_heads = 2;
  CHECK(weights::open_source(scratch / "a.safetensors", assumed)->info().model == config);
}

TEST_CASE("the metadata of safetensors holds the model") {
  const test::ScratchDirectory scratch;
  convert(test::stored("task_bfloat16.pth"), scratch / "x.safetensors");
  const auto bytes = read_whole_file(scratch / "x.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  const auto header = weights::parse_safetensors_header(
      std::string_view(bytes).substr(8, length), static_cast<std::int64_t>(bytes.size() - 8 - length), "x");
  CHECK(header.metadata.at("format") == "pt");
  const auto model = parse_json(header.metadata.at("ratplus")).at("model");
  CHECK(model.at("head_dim") == 4);
  CHECK(model.at("layers") == 2);
  CHECK(model.at("recurrence") == true);
}

TEST_CASE("safetensors: a NUL byte in the header, at which a parser may end, is damage") {
  const std::string entry = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  CHECK(weights::parse_safetensors_header("{" + entry + "}   ", 4, "x").entries.size() == 1);
  const std::string nul(1, '\0');
  for (const auto& header :
       {"{" + entry + "}" + nul, "{" + entry + "}" + nul + ",{}", "{" + nul + entry + "}",
        "{" + entry.substr(0, 2) + nul + entry.substr(2) + "}"}) {
    const auto message = message_of([&] { weights::parse_safetensors_header(header, 4, "x.safetensors"); });
    CAPTURE(message);
    CHECK(contains(message, "x.safetensors"));
    CHECK(contains(message, "damaged"));
  }
}
