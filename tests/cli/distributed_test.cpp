// The same job on 1, 2, 3 and 4 ranks and in every sharding.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "tests/cli/program.h"

using namespace ratplus;

namespace {

/// Losses and norms of a run with these settings of [parallel] ("shard=full prefetch=2"). nodes: the layout that the
/// ranks are told (RATPLUS_TEST_NODES).
std::vector<double> losses_of(int ranks, const std::string& settings, const std::string& nodes = "") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  std::string overrides;
  std::istringstream words(settings);
  for (std::string word; words >> word;) overrides += " parallel." + word;
  const auto arguments =
      fmt::format("train {} --set job.directory={} data.directory={}{}", playground.job.string(),
                  run.string(), playground.data.string(), overrides);
  const std::string layout = nodes.empty() ? "" : "RATPLUS_TEST_NODES=" + nodes + " ";
  const auto result = test::shell(layout + test::command(arguments, ranks));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  return test::losses(run);
}

const std::vector<double>& losses_of_one_rank() {
  static const auto losses = losses_of(1, "shard=none");
  return losses;
}

void check_same(const std::vector<double>& here, double loss_tolerance, double norm_tolerance) {
  const auto& single = losses_of_one_rank();
  REQUIRE(here.size() == single.size());
  double worst_loss = 0;
  double worst_norm = 0;
  for (std::size_t i = 0; i < single.size(); i += 2) {
    worst_loss = std::max(worst_loss, std::abs(here[i] / single[i] - 1));
    worst_norm = std::max(worst_norm, std::abs(here[i + 1] / single[i + 1] - 1));
  }
  CHECK(worst_loss < loss_tolerance);
  CHECK(worst_norm < norm_tolerance);
  MESSAGE("losses agree to ", worst_loss, ", norms to ", worst_norm);
}

// Norms are of nearly cancelling sums: less exact than the losses.
constexpr double loss_noise = 1e-6;
constexpr double norm_noise = 1e-4;

}  // namespace

TEST_CASE("losses and norms of 20 joint steps agree to 1e-6 over ranks and shardings") {
  const auto& single = losses_of_one_rank();
  REQUIRE(single.size() == 20 * 2 * 2);
  CHECK(single.front() > single[single.size() - 4] + 0.2);  // it learns
  for (const int ranks : {2, 3, 4}) {
    for (const char* shard : {"none", "optimizer", "full"}) {
      CAPTURE(ranks);
      CAPTURE(std::string(shard));
      check_same(losses_of(ranks, fmt::format("shard={}", shard)), loss_noise, norm_noise);
    }
  }
}

TEST_CASE("they agree on every mesh of 4 and 6 ranks") {
  struct Layout {
    int replicas;
    int shards;
  };
  for (const Layout& layout : {Layout{4, 1}, {2, 2}, {1, 4}, {3, 2}, {2, 3}}) {
    for (const char* shard : {"optimizer", "full"}) {
      CAPTURE(layout.replicas);
      CAPTURE(layout.shards);
      CAPTURE(std::string(shard));
      check_same(losses_of(layout.replicas * layout.shards,
                           fmt::format("shard={} shard_group={}", shard, layout.shards)),
                 loss_noise, norm_noise);
    }
  }
}

TEST_CASE("they agree where nodes make the mesh, whatever order ranks are spread over them in") {
  for (const char* nodes : {"0,0,1,1", "0,1,0,1"}) {
    CAPTURE(std::string(nodes));
    check_same(losses_of(4, "shard=full", nodes), loss_noise, norm_noise);
  }
}

TEST_CASE("they agree with more buffers and with weights that are kept, and nearly so with sums in bf16") {
  check_same(losses_of(4, "shard=full shard_group=2 prefetch=2 keep_weights=true"), loss_noise, norm_noise);
  const auto& single = losses_of_one_rank();
  for (const char* shard : {"none", "optimizer", "full"}) {
    CAPTURE(std::string(shard));
    const auto here = losses_of(4, fmt::format("shard={} shard_group=2 reduce=bf16", shard));
    // Sums are rounded to 8 bits, by at most 2^-8 of themselves: so is the first norm. Later ones are of other weights.
    CHECK(here[1] == doctest::Approx(single[1]).epsilon(1.0 / 512));
    CHECK(here[1] != single[1]);
    check_same(here, 2e-3, 1);
  }
}

TEST_CASE("they nearly agree with sums in bf16 between hosts, and are those of float32 on one host") {
  const auto& single = losses_of_one_rank();
  for (const auto& entry :
       {std::pair{"shard=none", "0,0,1,1"}, {"shard=optimizer", "0,1,0,1"}, {"shard=full", "0,1,2,3"}}) {
    const auto& settings = entry.first;
    const auto& nodes = entry.second;
    CAPTURE(std::string(settings));
    CAPTURE(std::string(nodes));
    const auto here = losses_of(4, fmt::format("{} reduce=bf16_between_hosts", settings), nodes);
    // The hosts' sums are rounded by at most 2^-8 of themselves, and so is the sum of them.
    CHECK(here[1] == doctest::Approx(single[1]).epsilon(1.0 / 256));
    CHECK(here[1] != single[1]);
    check_same(here, 2e-3, 1);
  }
  check_same(losses_of(4, "shard=optimizer shard_group=2 reduce=bf16_between_hosts"), loss_noise, norm_noise);
}

TEST_CASE("a mesh that the ranks do not fit is refused once, and nothing is written") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto arguments =
      fmt::format("train {} --set job.directory={} data.directory={} parallel.shard=full",
                  playground.job.string(), (scratch / "run").string(), playground.data.string());
  for (const auto& [group, nodes] : {std::pair<const char*, const char*>{"2", "0,0,0"},
                                     {"-1", "0,0,1"},
                                     {"0 parallel.reduce=bf16_between_hosts", "0,1,2"}}) {
    const auto result = test::shell(fmt::format(
        "RATPLUS_TEST_NODES={} {}", nodes, test::command(arguments + " parallel.shard_group=" + group, 3)));
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::count(result.output, "ratplus: ") == 1);
    CHECK(test::contains(result.output, "parallel.shard_group"));
    CHECK(!std::filesystem::exists(scratch / "run"));
  }
}

TEST_CASE("ranks of another program, or with another job, are refused once, and nothing is written") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto arguments = [&](const char* more) {
    return fmt::format("train {} --set job.directory={} data.directory={} {}", playground.job.string(),
                       (scratch / "run").string(), playground.data.string(), more);
  };
  // Two ranks, the second with its own environment and words.
  const auto run = [&](const char* environment, const char* more) {
    return test::shell(fmt::format("{} : -n 1 {} {}", test::command(arguments(""), 1), environment,
                                   test::command(arguments(more))));
  };
  const auto program = run("-x RATPLUS_TEST_REVISION=0123abc", "");
  CAPTURE(program.output);
  CHECK(program.status == 1);
  CHECK(test::contains(program.output, "ratplus: rank 1 on "));
  CHECK(test::contains(program.output, "revision 0123abc"));
  CHECK(test::contains(program.output, "install the same program on all hosts"));
  const auto job = run("", "schedule.peak_lr=1 model.layers=2");
  CAPTURE(job.output);
  CHECK(job.status == 1);
  CHECK(test::contains(job.output, "ratplus: rank 1 on "));
  CHECK(test::contains(job.output, "  schedule.peak_lr = 1"));
  CHECK(test::contains(job.output, "  model.layers = 2 (was 3)"));
  for (const auto* result : {&program, &job}) CHECK(test::count(result->output, "ratplus: ") == 1);
  CHECK(!std::filesystem::exists(scratch / "run"));
}
