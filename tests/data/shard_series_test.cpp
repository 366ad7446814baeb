#include "data/dataset/shard_series.h"

#include <doctest/doctest.h>

#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

using Entry = std::tuple<std::string, std::int64_t, std::int64_t>;

std::vector<Entry> entries(const std::vector<ManifestShard>& shards) {
  std::vector<Entry> list;
  for (const ManifestShard& shard : shards) list.emplace_back(shard.file, shard.tokens, shard.documents);
  return list;
}

}  // namespace

TEST_CASE("shard series: a shard ends with the document that fills it, and the last one need not be full") {
  const Scratch scratch;
  const ShardInfo shared{.vocab_size = 100, .end_of_text = 0, .tokenizer = "test"};
  ShardSeries<ShardWriter> series(scratch.path(), Split::validation, 6,
                                  [&](const fs::path& file) { return ShardWriter(file, shared, {}); });
  for (const std::size_t tokens : {2, 2, 9, 1, 1}) {  // and an end-of-text token each
    series.add([&](ShardWriter& shard) { shard.add_document(std::vector<std::int32_t>(tokens, 7)); });
  }
  CHECK(entries(series.finish()) == std::vector<Entry>{{"validation-00000.h5", 6, 2},
                                                       {"validation-00001.h5", 10, 1},
                                                       {"validation-00002.h5", 4, 2}});
  for (const char* name : {"validation-00000.h5", "validation-00001.h5", "validation-00002.h5"})
    ShardReader(scratch / name);  // whole
}

TEST_CASE("shard series: of samples, which are counted by their lengths; none where nothing was added") {
  const Scratch scratch;
  const SampleShardInfo shared{.length = 5, .vocab_size = 100, .end_of_text = 0, .tokenizer = "test"};
  const auto begin = [&](const fs::path& file) { return SampleShardWriter(file, shared); };
  const std::vector<std::int32_t> sample(5, 1);
  {
    ShardSeries<SampleShardWriter> none(scratch.path(), Split::validation, 2, begin);
    CHECK(none.finish().empty());
    ShardSeries<SampleShardWriter> series(scratch.path(), Split::train, 2, begin);
    for (int i = 0; i < 4; ++i) series.add([&](SampleShardWriter& shard) { shard.add(sample, sample); });
    CHECK(entries(series.finish()) ==
          std::vector<Entry>{{"train-00000.h5", 10, 2}, {"train-00001.h5", 10, 2}});
    CHECK(SampleShardReader(scratch / "train-00001.h5").info().samples == 2);
  }
}
