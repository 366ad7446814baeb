// A solo world: one rank, whose program never starts MPI (any call of MPI before MPI_Init would end it).
#include <doctest/doctest.h>
#include <mpi.h>

#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "lib/bench/step_bench.h"
#include "parallel/communicator.h"
#include "parallel/parameter_store.h"
#include "parallel/world.h"
#include "tests/plan/jobs.h"

using namespace ratplus;
using parallel::AgreedError;
using parallel::World;

namespace {

void check_without_mpi() {
  int initialized = 1;
  MPI_Initialized(&initialized);  // may be called at any time
  CHECK(initialized == 0);
}

}  // namespace

TEST_CASE("a solo world is rank 0 of 1, and its sums, maxima and texts are its own") {
  const World world = World::solo();
  CHECK(!world.connected());
  CHECK(world.root());
  CHECK(world.size() == 1);
  CHECK(world.local_rank() == 0);
  CHECK(world.local_size() == 1);
  CHECK(world.nodes() == std::vector<int>{0});
  CHECK(!world.host().empty());
  CHECK(world.threads(3) == 3);
  CHECK(world.threads(0) >= 1);
  CHECK(world.host_memory() != 0);
  CHECK(world.sum(1.5) == 1.5);
  CHECK(world.sum(std::int64_t{-7}) == -7);
  CHECK(world.max(std::int64_t{-7}) == -7);
  std::array values = {1.0, -2.0};
  world.sum(values);
  CHECK(values == std::array{1.0, -2.0});
  CHECK(world.all(values) == std::vector<double>{1.0, -2.0});
  CHECK(world.all(std::int64_t{4}) == std::vector<std::int64_t>{4});
  CHECK(world.all(std::string("text")) == std::vector<std::string>{"text"});
  CHECK(world.broadcast("text") == "text");
  CHECK(world.from_root([] { return std::string("found"); }) == "found");
  CHECK_NOTHROW(world.agree([] {}));
  CHECK_THROWS_WITH_AS(world.agree([] { fail("job.toml:3: wrong"); }), "job.toml:3: wrong", AgreedError);
  check_without_mpi();
}

TEST_CASE("a group of one rank gathers and sums its own part, also into other memory") {
  std::vector<float> part{1, 2, 3}, whole(3), sum(3);
  const Tensor p(part.data(), DType::f32, {3}), w(whole.data(), DType::f32, {3}),
      s(sum.data(), DType::f32, {3});
  const auto group = parallel::make_solo_communicator();
  CHECK(group->rank() == 0);
  CHECK(group->size() == 1);
  auto request = group->all_gather(w, p, "unit");
  CHECK(!request.pending());
  request.wait();
  CHECK(whole == part);
  group->reduce_scatter(s, w, "unit").wait();
  CHECK(sum == part);
  group->all_reduce(s, "unit").wait();
  CHECK(sum == part);
  CHECK_THROWS_AS(group->all_gather(w.slice(0, 0, 2), p, "unit"), std::logic_error);
  check_without_mpi();
}

TEST_CASE("a solo world connects no mesh of several ranks") {
  const World world = World::solo();
  const auto ops = make_cpu_ops(1);
  const auto connect = [&](int ranks) {
    const std::vector<int> nodes(static_cast<std::size_t>(ranks));
    return make_mesh_groups(*ops, world,
                            parallel::make_mesh(nodes, 0, parallel::Sharding::full, parallel::all_ranks));
  };
  CHECK(connect(1).shards->size() == 1);
  CHECK(connect(1).replicas->size() == 1);
  CHECK_THROWS_AS(connect(2), std::logic_error);
  check_without_mpi();
}

TEST_CASE("whole steps of training run on a solo world in every sharding, and without MPI") {
  const World world = World::solo();
  for (const char* shard : {"none", "optimizer", "full"}) {
    CAPTURE(std::string(shard));
    const auto job =
        plan::shipped_job("quickstart/pretrain", {"model.width=64", "model.layers=2", "model.head_dim=32",
                                                  "data.window=32", "data.micro_batch=1", "job.device=cpu",
                                                  "job.threads=1", std::string("parallel.shard=") + shard});
    const auto times = bench::time_steps({.job = job, .micro_batches = 2, .warmup = 0, .steps = 1}, world);
    CHECK(times.ranks == 1);
    REQUIRE(!times.losses.empty());
    for (const double loss : times.losses)
      CHECK(loss == doctest::Approx(std::log(static_cast<double>(job.model.vocab_size))).epsilon(0.1));
    CHECK(parallel::totals(times.timeline).empty());  // no collective
  }
  check_without_mpi();
}
