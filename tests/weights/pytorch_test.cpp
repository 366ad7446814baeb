// Files that PyTorch wrote (tests/reference/make_checkpoints.py), what is refused of them, and the file that PyTorch
// was seen to take.
#include <doctest/doctest.h>

#include <cstring>
#include <fstream>

#include "base/files/pending_file.h"
#include "lib/weights/unpickler.h"
#include "lib/weights/zip_writer.h"
#include "tests/weights/support.h"

using namespace ratplus;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

namespace {

std::string refused(const fs::path& file) {
  return message_of([&] { weights::open_source(file, test::small_model); });
}

/// What reading every element of a file says.
std::string reading(const fs::path& file) {
  return message_of([&] {
    const auto source = weights::open_source(file, test::small_model);
    for (const auto& parameter : weights::parameters_of(*source, {})) {
      std::vector<float> all(static_cast<std::size_t>(parameter.numel()));
      const auto offset = source->units()[parameter.unit].slots[parameter.slot].offset;
      source->read(parameter.unit, {offset, offset + parameter.numel()}, all.data());
    }
  });
}

/// An archive of torch.save's with this pickle and no tensors.
fs::path archive(const test::ScratchDirectory& scratch, const std::string& pickle) {
  const auto file = scratch / "made.pth";
  weights::ZipWriter zip(file, file);
  zip.add("archive/data.pkl", pickle);
  zip.finish();
  return file;
}

std::string unpickled(const std::string& pickle) {
  return message_of([&] { weights::unpickle(pickle, "P"); });
}

}  // namespace

TEST_CASE("a checkpoint of a training: prefixed names, bfloat16, an optimizer and other entries beside it") {
  const auto source = test::open_small("task_bfloat16.pth");
  CHECK(source->info().model == test::small_model);
  CHECK(std::string(source->format()) == "PyTorch");
  CHECK(source->stored_type(0, 0) == checkpoint::StoredType::bfloat16);
  CHECK(source->info().tokenizer.empty());
  CHECK(test::wrong_elements(*source) == 0);
}

TEST_CASE("a bare state dict of the baseline without recurrence, in float16") {
  const auto source = test::open_small("bare_float16.pth");
  auto expected = test::small_model;
  expected.mixers = {{model::MixerKind::gated_attention}};
  CHECK(source->info().model == expected);
  CHECK(source->stored_type(1, 1) == checkpoint::StoredType::float16);
  CHECK(test::wrong_elements(*source) == 0);
}

TEST_CASE(
    "views: transposed, every second column, a part of a storage, expanded; a Parameter; protocol 4; "
    "deflated") {
  for (const char* name : {"odd_views.pth", "deflated.pth"}) {
    CAPTURE(std::string(name));
    const auto source = test::open_small(name);
    CHECK(test::wrong_elements(*source, "backbone.ln.weight") == 0);
    for (const auto& parameter : weights::parameters_of(*source, {})) {
      if (parameter.name != "backbone.ln.weight") continue;
      CHECK(test::elements_of(*source, parameter) == std::vector<float>(8, 0.375f));
    }
  }
}

TEST_CASE("the gaps between parameters are zero") {
  const auto source = test::open_small();
  const auto& unit = source->units()[1];
  std::vector<float> all(static_cast<std::size_t>(unit.numel), 9.0f);
  source->read(1, {0, unit.numel}, all.data());
  CHECK(unit.slots[0].numel == 8);
  for (std::size_t i = 8; i < 64; ++i) CHECK(all[i] == 0.0f);
}

TEST_CASE("code in a pickle is refused by name, and not run") {
  const test::ScratchDirectory scratch;
  const auto harm = scratch / "harm";
  const std::string text = "touch " + harm.string();
  const std::string call =
      "\x80\x02"
      "cos\nsystem\n(X" +
      std::string(1, static_cast<char>(text.size())) + std::string(3, '\0') + text + "tR.";
  const auto message = refused(archive(scratch, call));
  CHECK(contains(message, "made.pth"));
  CHECK(contains(message, "os.system"));
  CHECK(contains(message, "save its state dict"));
  CHECK(!fs::exists(harm));
  CHECK(contains(unpickled("\x80\x04\x8c\x08"
                           "builtins\x8c\x04"
                           "eval\x93."),
                 "builtins.eval"));
  // Known names stay what they are: no attribute, no call of a type, no object made by a class.
  CHECK(contains(unpickled("\x80\x02"
                           "ctorch\nFloatStorage\n)R."),
                 "torch.FloatStorage"));
  CHECK(contains(unpickled("\x80\x02"
                           "ctorch\nTensor\n)\x81."),
                 "opcode 0x81"));
  CHECK(contains(unpickled("\x80\x02"
                           "ctorch\nTensor\n}b."),
                 "attributes"));
  CHECK(contains(unpickled("\x80\x02"
                           "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\nctorch\nTensor\n)tR."),
                 "unknown type"));
}

TEST_CASE("damaged pickles") {
  CHECK(contains(unpickled(""), "ends in the middle"));
  CHECK(contains(unpickled("\x80\x02}"), "ends in the middle"));
  CHECK(contains(unpickled("\x80\x09"), "newer protocol"));
  CHECK(contains(unpickled("\x80\x02."), "a value is missing"));
  CHECK(contains(unpickled("\x80\x02u"), "a mark is missing"));
  CHECK(contains(unpickled("\x80\x02h\x05."), "reference"));
  CHECK(contains(unpickled("\x80\x02}(K\x01u."), "key without a value"));
  CHECK(
      contains(unpickled("\x80\x02}(K\x01s."), "a value is missing"));  // nothing is taken from below a mark
  CHECK(contains(unpickled("\x80\x02X\xff\xff\xff\x7f"
                           "abc"),
                 "ends in the middle"));
  CHECK(contains(unpickled("\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
                           "abc"),
                 "ends in the middle"));
  CHECK(contains(unpickled("\x80\x02(K\x01K\x02tQ."), "no tensor's storage"));
}

TEST_CASE("numbers of pickles") {
  const auto number = [](const std::string& pickle) { return weights::unpickle(pickle, "P").root().number; };
  CHECK(number("J\xff\xff\xff\xff.") == -1);
  CHECK(number("K\xff.") == 255);
  CHECK(number("M\x01\x02.") == 513);
  CHECK(number(std::string("\x8a\x00.", 3)) == 0);
  CHECK(number("\x8a\x01\xfb.") == -5);
  CHECK(number(std::string("\x8a\x06\x00\x00\x00\x00\x00\x01.", 9)) == 1LL << 40);
  CHECK(weights::unpickle(std::string("G\xbf\xf8\0\0\0\0\0\0.", 10), "P").root().real == -1.5);
}

TEST_CASE("files that stand for weights are called by name") {
  const test::ScratchDirectory scratch;
  for (const char* name : {"x.pth", "model.safetensors"}) {
    const auto file = scratch / name;
    std::ofstream(file) << "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4567\n";
    CHECK(contains(message_of([&] { weights::open_source(file); }), "a Git LFS pointer"));
    std::ofstream(file) << "<!DOCTYPE html><html><body>Access denied, log in first, please</body></html>";
    CHECK(contains(message_of([&] { weights::open_source(file); }), "a page of the web"));
  }
}

TEST_CASE("files that are no checkpoint are told apart") {
  const test::ScratchDirectory scratch;
  const auto file = scratch / "x.pth";
  const auto with = [&](const std::string& bytes) {
    write_whole_file(file, bytes);
    return refused(file);
  };
  const auto whole = read_whole_file(test::stored("task_bfloat16.pth"));
  CHECK(contains(with(""), "neither a file of PyTorch's"));
  CHECK(contains(with("hello"), "neither a file of PyTorch's"));
  CHECK(contains(with("\x80\x02\x8a\nlF"), "before version 1.6"));
  CHECK(contains(with("\x89HDF\r\n\x1a\n"), "an HDF5 file"));
  CHECK(contains(with(whole.substr(0, whole.size() / 2)), "cut short"));
  CHECK(contains(refused(scratch / "nowhere.pth"), "no such checkpoint"));
  CHECK(contains(refused(scratch.path()), "neither a checkpoint"));
  CHECK(contains(refused(archive(scratch, "\x80\x02K\x01.")), "no dictionary"));
  CHECK(contains(refused(archive(scratch, "\x80\x02}X\x05" + std::string(3, '\0') + "modelK\x01s.")),
                 "keys: model"));
  CHECK(contains(refused(archive(scratch, "\x80\x02}.")), "has no embedding.wte.weight"));
}

TEST_CASE("a flipped byte of a weight is told, with its record") {
  const test::ScratchDirectory scratch;
  auto bytes = read_whole_file(test::stored("task_bfloat16.pth"));
  const auto at = bytes.find("/data/2FB") + 200;  // in a matrix
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_whole_file(scratch / "x.pth", bytes);
  const auto message = reading(scratch / "x.pth");
  CHECK(contains(message, "x.pth: record"));
  CHECK(contains(message, "data/2"));
  CHECK(contains(message, "checksum"));
  CHECK(reading(test::stored("task_bfloat16.pth")).empty());
}

TEST_CASE("what ratplus writes is what PyTorch was seen to take (make_checkpoints.py --check)") {
  const test::ScratchDirectory scratch;
  const auto source = test::open_small();
  weights::convert(*source, scratch / "written.pth", {.type = checkpoint::StoredType::float32});
  const auto written = read_whole_file(scratch / "written.pth");
  if (std::getenv("RATPLUS_UPDATE") != nullptr) write_whole_file(test::stored("written.pth"), written);
  CHECK(written == read_whole_file(test::stored("written.pth")));
  CHECK(test::wrong_elements(*weights::open_source(scratch / "written.pth")) == 0);  // its head_dim is in it
}
