#include "parallel/parameter_store.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "tests/support/ranks.h"

using namespace ratplus;
using namespace ratplus::parallel;

namespace {

/// A root and blocks of uneven sizes: not multiples of the alignment or of the ranks.
std::vector<UnitLayout> uneven_units(int blocks) {
  std::vector<UnitLayout> units(1);
  units[0].name = "root";
  units[0].resident = true;
  units[0].add("embedding", {13, 11});
  units[0].add("norm", {11});
  for (int b = 0; b < blocks; ++b) {
    UnitLayout unit{.name = "blocks." + std::to_string(b), .resident = false, .slots = {}};
    unit.add("matrix", {17, 29 + b});
    unit.add("norm", {17});
    units.push_back(unit);
  }
  return units;
}

/// A store with memory of its own.
struct Fixture {
  Fixture(Sharding sharding, int blocks)
      : ops(make_cpu_ops(1)), communicator(make_mpi_communicator()), arena(ops->device()) {
    const auto build = [&] {
      store = std::make_unique<ParameterStore>(*ops, *communicator, uneven_units(blocks), sharding,
                                               parallel::Use::training, arena);
    };
    build();
    arena.commit();
    build();
  }

  /// The value of element i of a unit's master, here: distinct in unit and element.
  static float weight(std::size_t unit, std::int64_t i, int version) {
    return static_cast<float>(unit) + static_cast<float>(i) / 4096.0F + static_cast<float>(version) * 100;
  }

  void set_masters(int version) {
    for (std::size_t u = 0; u < store->units().size(); ++u) {
      const auto owned = store->owned(u);
      for (auto i = owned.begin; i < owned.end; ++i) {
        store->master(u).as<float>()[i - owned.begin] = weight(u, i, version);
      }
    }
  }

  /// A pass as a model makes it: all units' weights in order, then their gradients in reverse.
  void pass(int version, float gradient_value) {
    const auto& units = store->units();
    store->prefetch(1);
    for (std::size_t u = 0; u < units.size(); ++u) {
      const Tensor weights = store->weights(u);
      if (u + 1 < units.size()) store->prefetch(u + 1);
      for (std::int64_t i = 0; i < units[u].numel; ++i) {
        REQUIRE(weights.as<float>()[i] == weight(u, i, version));
      }
      store->release(u);
    }
    for (std::size_t u = units.size(); u-- > 0;) {
      const auto gradient = store->gradient(u);
      for (std::int64_t i = 0; i < units[u].numel; ++i) {
        const float value = gradient_value * static_cast<float>(i % 7 + 1);
        float& there = gradient.flat.as<float>()[i];
        there = gradient.fresh ? value : there + value;
      }
      CHECK(!store->gradient(u).fresh);
      store->gradient_ready(u);
    }
  }

  std::unique_ptr<Ops> ops;
  std::unique_ptr<Communicator> communicator;
  Arena arena;
  std::unique_ptr<ParameterStore> store;
};

}  // namespace

TEST_CASE("parts cover a unit without overlap, for any number of ranks") {
  for (const auto& unit : uneven_units(3)) {
    for (int parts = 1; parts <= 9; ++parts) {
      std::int64_t end = 0;
      for (int part = 0; part < parts; ++part) {
        const auto range = unit_part(unit, part, parts);
        CHECK(range.begin == end);
        CHECK(range.size() <= unit_part_size(unit, parts));
        end = range.end;
      }
      CHECK(end == unit.numel);
    }
  }
}

TEST_CASE("weights and summed gradients are right in every sharding, over updates and micro-batches") {
  for (const auto sharding : {Sharding::none, Sharding::optimizer, Sharding::full}) {
    for (const int blocks : {1, 2, 5}) {
      for (const int micro_batches : {1, 2, 3}) {
        CAPTURE(to_string(sharding));
        CAPTURE(blocks);
        CAPTURE(micro_batches);
        Fixture f(sharding, blocks);
        for (int version = 0; version < 3; ++version) {
          f.set_masters(version);
          f.store->publish_masters();
          f.store->begin_update();
          float expected = 0;
          for (int m = 0; m < micro_batches; ++m) {
            f.store->begin_micro_batch(m + 1 == micro_batches);
            f.pass(version, static_cast<float>(world().rank() + 1 + m));
            for (int rank = 0; rank < world().size(); ++rank) expected += static_cast<float>(rank + 1 + m);
          }
          f.store->finish_gradients();
          for (std::size_t u = 0; u < f.store->units().size(); ++u) {
            const auto owned = f.store->owned(u);
            const Tensor gradient = f.store->gradient_part(u);
            REQUIRE(gradient.numel() == owned.size());
            for (auto i = owned.begin; i < owned.end; ++i) {
              REQUIRE(gradient.as<float>()[i - owned.begin] == expected * static_cast<float>(i % 7 + 1));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("what is saved by all ranks is the unit, and is owned where it is saved") {
  for (const auto sharding : {Sharding::none, Sharding::optimizer, Sharding::full}) {
    Fixture f(sharding, 2);
    for (std::size_t u = 0; u < f.store->units().size(); ++u) {
      const auto saved = f.store->saved(u);
      const auto owned = f.store->owned(u);
      CHECK(owned.begin <= saved.begin);
      CHECK(saved.end <= owned.end);
      CHECK(world().sum(saved.size()) == f.store->units()[u].numel);
    }
  }
}

TEST_CASE("sharding lowers a rank's memory") {
  if (world().size() < 2) return;
  const auto bytes = [](Sharding sharding) {
    Fixture f(sharding, 12);
    return f.arena.total_bytes();
  };
  CHECK(bytes(Sharding::full) < bytes(Sharding::none));
}

TEST_CASE("asking for more units at once than there are buffers is a bug that is named") {
  Fixture f(Sharding::full, 5);
  if (world().size() == 1) return;
  f.set_masters(0);
  f.store->publish_masters();
  f.store->weights(1);
  f.store->weights(2);
  CHECK_THROWS_AS(f.store->weights(3), std::logic_error);
}
