#include "tests/cli/program.h"

#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/files/hdf5.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "base/random.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/part.h"
#include "lib/model/parameters.h"

namespace ratplus::test {
namespace {

constexpr const char* job_text = R"([job]
recipe = "joint"
joint_pattern = { dilation = 8, window = 0, sinks = 0 }
seed = 3
[model]
layers = 3
width = 32
head_dim = 16
vocab_size = 400
[data]
sequence_length = 32
batch = 12
micro_batch = 1
[schedule]
steps = 20
peak_lr = 2e-3
[checkpoint]
every = 5
[log]
every = 1
validate_every = 10
validation_sequences = 7
)";

/// Sentences of made-up words, some more likely than others, so that there is something to learn.
std::string made_up_text(std::uint64_t document) {
  static constexpr std::array syllables = {"ba", "ke", "lo", "mi", "nu", "ra",
                                           "so", "ti", "va", "zu", "é",  "日"};
  std::string text;
  std::uint64_t draw = 0;
  const auto below = [&](std::uint64_t bound) {
    return random_below(bound, document, Purpose::test, 0, draw++);
  };
  for (int sentence = 0; sentence < 30; ++sentence) {
    for (std::uint64_t word = 0, words = 3 + below(9); word < words; ++word) {
      for (std::uint64_t s = 0, count = 1 + below(3); s < count; ++s) {
        text += syllables.at(std::min(below(12), below(12)));
      }
      text += word + 1 == words ? ".\n" : " ";
    }
  }
  return text;
}

}  // namespace

Result shell(const std::string& command) {
  const auto began = std::chrono::steady_clock::now();
  const auto script = "timeout -k 2 240 sh -c '" + command + "' 2>&1 </dev/null";
  std::FILE* pipe = ::popen(script.c_str(), "r");
  if (pipe == nullptr) fail("cannot run {}", script);
  Result result;
  std::array<char, 4096> buffer{};
  for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    result.output.append(buffer.data(), n);
  }
  const int status = ::pclose(pipe);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return result;
}

std::string command(const std::string& arguments, int ranks) {
  const std::string program = std::string(RATPLUS_PROGRAM) + " " + arguments;
  return ranks == 0 ? program : fmt::format("{} -n {} {}", MPIEXEC, ranks, program);
}

Result ratplus(const std::string& arguments, int ranks) {
  return shell(command(arguments, ranks));
}

std::vector<std::string> option_names(const std::string& command) {
  const auto help = ratplus(command + " --help").output;
  std::istringstream in(help.substr(help.find("options:")));
  std::vector<std::string> names;
  for (std::string line; std::getline(in, line) && !line.starts_with("examples");) {
    const auto at = line.find("--");
    if (at > 7 || at == std::string::npos) continue;
    const auto name = line.substr(at, line.find_first_of(" ,", at) - at);
    if (name != "--help") names.push_back(name);
  }
  return names;
}

Playground::Playground() : data(scratch_ / "data"), job(scratch_ / "job.toml") {
  std::ofstream text(scratch_ / "text.jsonl");
  for (std::uint64_t document = 0; document < 40; ++document) {
    text << json_dump(nlohmann::json{{"text", made_up_text(document)}}) << '\n';
  }
  text.close();
  const auto prepared = ratplus(
      fmt::format("prepare {} --output {} --train-tokenizer --vocab-size 400 --validation-fraction 0.2",
                  (scratch_ / "text.jsonl").string(), data.string()));
  if (prepared.status != 0) fail("prepare ended with {}:\n{}", prepared.status, prepared.output);
  write_whole_file(job, fmt::format("{}[parallel]\nshard = \"none\"\n", job_text));
}

const Playground& Playground::get() {
  static const Playground playground;
  return playground;
}

std::vector<std::string> metrics(const std::filesystem::path& run, const std::string& kind) {
  std::ifstream in(run / "metrics.jsonl");
  std::vector<std::string> found;
  for (std::string line; std::getline(in, line);) {
    auto entry = parse_json(line);
    if (entry["kind"] != kind) continue;
    for (const char* clock : {"time", "seconds", "seconds_left", "step_seconds", "data_wait_share",
                              "tokens_per_second", "data_wait_seconds", "share_of_peak",
                              "memory_available_bytes", "host_memory_bytes", "health", "path"})
      entry.erase(clock);
    found.push_back(json_dump(entry));
  }
  return found;
}

std::vector<double> losses(const std::filesystem::path& run) {
  std::vector<double> all;
  for (const auto& line : metrics(run, "step")) {
    const auto entry = parse_json(line);
    for (const auto& update : entry["updates"]) {
      all.push_back(update["loss"]);
      all.push_back(update["gradient_norm"]);
    }
  }
  return all;
}

std::vector<float> state_of(const std::filesystem::path& run) {
  std::vector<float> all;
  const auto info = checkpoint::read_info(checkpoint::resolve(run));
  for (int part = 0; part < info.parts; ++part) {
    const auto file = hdf5::File::open(info.directory / checkpoint::file_name(part));
    for (const auto& kind : file.names()) {
      const auto group = file.group(kind);
      for (const auto& unit : group.names()) {
        const auto dataset = group.dataset(unit);
        const auto begin = all.size();
        all.resize(begin + static_cast<std::size_t>(dataset.size()));
        dataset.read<float>(0, std::span(all).subspan(begin));
      }
    }
  }
  return all;
}

void write_again(const checkpoint::Info& from, checkpoint::Info to) {
  const auto units = model::unit_layouts(from.model);
  checkpoint::PartReader reader(from);
  std::filesystem::create_directories(to.directory);
  to.files.clear();
  for (int part = 0; part < to.parts; ++part) {
    checkpoint::write_part(to.directory, to, part, units,
                           [&](checkpoint::Kind kind, std::size_t unit, parallel::UnitRange range,
                               std::span<float> out) { reader.read(kind, units[unit], range, out.data()); });
    to.files.push_back(checkpoint::measure(to.directory / checkpoint::file_name(part)));
  }
  checkpoint::write_manifest(to.directory, to);
}

}  // namespace ratplus::test
