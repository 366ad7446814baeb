#include "tests/fuzz/targets.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "lib/checkpoint/manifest.h"
#include "lib/config/job.h"
#include "lib/serve/completion_request.h"
#include "lib/weights/convert.h"
#include "lib/weights/safetensors_header.h"
#include "lib/weights/source.h"
#include "lib/weights/unpickler.h"
#include "lib/weights/zip_reader.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path source_directory = RATPLUS_SOURCE_DIR;
const model::ModelConfig small_model{.layers = 2, .width = 8, .head_dim = 4, .vocab_size = 10};

std::vector<fs::path> stored_files() {
  std::vector<fs::path> files;
  for (const char* name :
       {"task_bfloat16.pth", "bare_float16.pth", "odd_views.pth", "deflated.pth", "written.pth"})
    files.push_back(source_directory / "tests/reference/data" / name);
  return files;
}

/// Runs what may throw Error.
template <typename F>
void take(F f) {
  try {
    f();
  } catch (const Error&) {
  }
}

// --- pickles ----------------------------------------------------------------------------------------------------

void run_unpickler(std::string_view bytes) {
  take([&] {
    const auto pickle = weights::unpickle(bytes, "fuzz");
    pickle.find(pickle.root(), "task");
  });
}

std::vector<std::string> pickles() {
  std::vector<std::string> seeds;
  for (const auto& file : stored_files()) {
    weights::ZipReader zip(file);
    for (const auto& entry : zip.entries()) {
      if (entry.name.ends_with("data.pkl")) seeds.push_back(zip.read_all(entry, 1 << 20));
    }
  }
  return seeds;
}

// --- whole files of PyTorch's and safetensors -------------------------------------------------------------------

/// Opens the file and reads all weights, at most as many as a small model has.
void read_weights(const fs::path& file) {
  const auto source = weights::open_source(file, small_model);
  std::vector<float> values(1000);
  for (std::size_t u = 0; u < source->units().size(); ++u) {
    const auto numel = source->units()[u].numel;
    source->read(u, {0, std::min<std::int64_t>(numel, 1000)}, values.data());
    source->read(u, {std::max<std::int64_t>(numel - 1000, 0), numel}, values.data());
  }
}

void run_weights(std::string_view bytes) {
  const int memory = ::memfd_create("fuzz", 0);
  const fs::path file = "/proc/self/fd/" + std::to_string(memory);
  const bool written = ::write(memory, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  if (written) take([&] { read_weights(file); });
  ::close(memory);
}

std::vector<std::string> weight_files() {
  std::vector<std::string> seeds;
  for (const auto& file : stored_files()) seeds.push_back(read_whole_file(file));
  const test::ScratchDirectory scratch;
  weights::convert(*weights::open_source(stored_files()[0], small_model), scratch / "x.safetensors", {});
  seeds.push_back(read_whole_file(scratch / "x.safetensors"));
  return seeds;
}

// --- safetensors' header ----------------------------------------------------------------------------------------

void run_safetensors(std::string_view bytes) {
  take([&] { weights::parse_safetensors_header(bytes, 4000, "fuzz"); });
}

std::vector<std::string> safetensors_headers() {
  return {R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[10,20],"data_offsets":[0,800]},)"
          R"("b":{"dtype":"BF16","shape":[1600],"data_offsets":[800,4000]}})",
          R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[2,0],)"
          R"("data_offsets":[4,4]},"c":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}})"};
}

// --- manifests --------------------------------------------------------------------------------------------------

void run_manifest(std::string_view bytes) {
  take([&] { checkpoint::parse_manifest(std::string(bytes), "fuzz"); });
}

std::vector<std::string> manifests() {
  const test::ScratchDirectory scratch;
  checkpoint::Info info{.directory = scratch.path(),
                        .model = small_model,
                        .step = 5,
                        .updates = 10,
                        .tokens = 99,
                        .job = "[job]\ndirectory = \"x\"\n",
                        .tokenizer = "t",
                        .data = checkpoint::DataCounts{100, 4, 50, 2},
                        .parts = 2,
                        .files = {{.bytes = 1000, .crc32 = 0xdeadbeef}, {.bytes = 900, .crc32 = 7}}};
  checkpoint::write_manifest(scratch.path(), info);
  std::string text = read_whole_file(scratch / checkpoint::manifest_name);
  std::string first_version = text;  // without the checksum, that a mutation hardly gets past
  first_version.replace(first_version.find("\"version\": 2"), 12, "\"version\": 1");
  return {text, first_version};
}

// --- job files --------------------------------------------------------------------------------------------------

void run_job(std::string_view bytes) {
  take([&] { config::parse_job(bytes, "fuzz"); });
}

std::vector<std::string> jobs() {
  std::vector<std::string> seeds;
  for (const auto& file : fs::recursive_directory_iterator(source_directory / "configs")) {
    if (file.path().extension() == ".toml") seeds.push_back(read_whole_file(file.path()));
  }
  seeds.push_back(
      "[job]\ndirectory = \"r\"\npattern = [[\"64,0,4\", \"dense\"], {dilation = \"none\", window = 3}]\n"
      "[model]\nlayers = 2\nwidth = 256\n[data]\ndirectory = \"d\"\n[schedule]\ntokens = 110e9\n");
  return seeds;
}

// --- requests of a server ---------------------------------------------------------------------------------------

void run_request(std::string_view bytes) {
  constexpr serve::RequestLimits limits{.vocabulary = 1000, .tokens = 100, .sequences = 16};
  take([&] { serve::parse_completion(bytes, limits); });
  take([&] { serve::parse_generate(bytes, limits); });
}

std::vector<std::string> requests() {
  return {
      R"({"model": "m", "prompt": [[1, 2, 3], [4, 5]], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true})",
      R"({"prompt": ["a", "b"], "n": 2, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "logit_bias": {"17": -2.5}, "stop": "x"})",
      R"({"prompt": "\ud83d\ude00", "stream": true, "stream_options": {"include_usage": true}, "stop_token_ids": [1, 2]})",
      R"({"prompt": "a", "max_tokens": 8, "top_k": 32, "top_p": 1, "stop": ["b"], "user": null, "best_of": 1, "banned": [3]})",
      R"({"text": "a", "sampling_params": {"max_new_tokens": 8, "temperature": 0.5, "repetition_penalty": 1.2}, "seed": 1})"};
}

constexpr std::array all_targets = {
    Target{"unpickler", run_unpickler, pickles},
    Target{"weights", run_weights, weight_files},
    Target{"safetensors", run_safetensors, safetensors_headers},
    Target{"manifest", run_manifest, manifests},
    Target{"job", run_job, jobs},
    Target{"request", run_request, requests},
};

}  // namespace

std::span<const Target> targets() {
  return all_targets;
}

}  // namespace ratplus::fuzz
