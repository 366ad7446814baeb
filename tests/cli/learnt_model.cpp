#include "tests/cli/learnt_model.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>

#include "base/error.h"
#include "base/files/hdf5.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "data/tokenizer/token_numbers.h"
#include "tests/cli/program.h"

namespace ratplus::test {

namespace {

struct Trained {
  Trained() {
    const auto& playground = Playground::get();
    const auto result =
        test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=60 "
                                  "checkpoint.every=0 job.threads=1",
                                  playground.job.string(), run.string(), playground.data.string()));
    if (result.status != 0) fail("{}", result.output);
  }
  static const Trained& get() {
    static const Trained trained;
    return trained;
  }

  ScratchDirectory scratch;
  std::filesystem::path run = scratch / "run";
};

}  // namespace

std::string learnt_run() {
  return Trained::get().run.string();
}

std::string output_of(const std::string& arguments) {
  const ScratchDirectory scratch;
  const auto result = shell(command(arguments) + " 2>" + (scratch / "errors").string());
  CAPTURE(read_whole_file(scratch / "errors"));
  REQUIRE(result.status == 0);
  return result.output;
}

std::vector<nlohmann::json> lines_of(const std::filesystem::path& file) {
  std::vector<nlohmann::json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

void write_lines(const std::filesystem::path& file, const std::vector<nlohmann::json>& lines) {
  std::string text;
  for (const auto& line : lines) text += json_dump(line) + "\n";
  write_whole_file(file, text);
}

std::vector<std::vector<double>> log_probabilities(const std::vector<std::int32_t>& tokens,
                                                   const std::string& pattern) {
  const ScratchDirectory scratch;
  write_whole_file(scratch / "tokens", data::to_text(tokens) + "\n");
  const auto result =
      test::ratplus(fmt::format("eval {} --tokens {} --dump-logits {} --pattern {}", learnt_run(),
                                (scratch / "tokens").string(), (scratch / "l.h5").string(), pattern));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  const auto file = hdf5::File::open(scratch / "l.h5");
  const auto dataset = file.group("0").dataset("logits");
  std::vector<float> all(static_cast<std::size_t>(dataset.size()));
  dataset.read<float>(0, all);
  const auto vocabulary = all.size() / tokens.size();
  std::vector<std::vector<double>> rows;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    rows.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(t * vocabulary),
                      all.begin() + static_cast<std::ptrdiff_t>((t + 1) * vocabulary));
    double sum = 0;
    for (const double logit : rows.back()) sum += std::exp(logit);
    for (double& logit : rows.back()) logit -= std::log(sum);
  }
  return rows;
}

std::int32_t likeliest(const std::vector<double>& row) {
  return static_cast<std::int32_t>(std::ranges::max_element(row) - row.begin());
}

}  // namespace ratplus::test
