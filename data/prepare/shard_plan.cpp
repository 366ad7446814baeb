#include "data/prepare/shard_plan.h"
#include "base/json_dump.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "data/dataset/shard.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::array splits = {Split::train, Split::validation};

fs::path duplicates_name(const fs::path& directory, std::int64_t unit, Split split) {
  return directory / fmt::format("unit-{:06}-{}.duplicates", unit, to_string(split));
}

/// Numbers of the unit's documents that are left out, rising.
std::vector<std::int64_t> read_duplicates(const fs::path& directory, std::int64_t unit, Split split,
                                          bool any) {
  if (!any) return {};
  const std::string bytes = read_whole_file(duplicates_name(directory, unit, split));
  std::vector<std::int64_t> numbers(bytes.size() / sizeof(std::int64_t));
  if (!bytes.empty()) std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(std::int64_t));
  return numbers;
}

/// Tells for rising numbers whether each is in a rising list.
class RisingSet {
 public:
  explicit RisingSet(std::vector<std::int64_t> numbers) : numbers_(std::move(numbers)) {}
  bool contains(std::int64_t number) {
    while (at_ < numbers_.size() && numbers_[at_] < number) ++at_;
    return at_ < numbers_.size() && numbers_[at_] == number;
  }

 private:
  std::vector<std::int64_t> numbers_;
  std::size_t at_ = 0;
};

/// Puts one split's documents into shards.
class Planner {
 public:
  Planner(Split split, std::int64_t shard_tokens, std::vector<PlannedShard>& plan)
      : split_(split), shard_tokens_(shard_tokens), plan_(plan) {}

  void add(std::int64_t unit, std::int64_t document, std::int64_t tokens) {
    if (!open_) {
      plan_.push_back({.split = split_, .entry = {.file = shard_name(split_, shards_++)}, .spans = {}});
      open_ = true;
    }
    PlannedShard& shard = plan_.back();
    if (shard.spans.empty() || shard.spans.back().unit != unit)
      shard.spans.push_back({unit, document, document});
    shard.spans.back().end = document + 1;
    shard.entry.tokens += tokens;
    ++shard.entry.documents;
    open_ = shard.entry.tokens < shard_tokens_;
  }

 private:
  Split split_;
  std::int64_t shard_tokens_;
  std::vector<PlannedShard>& plan_;
  bool open_ = false;
  std::int64_t shards_ = 0;
};

}  // namespace

std::vector<PlannedShard> plan_shards(const fs::path& units_directory, std::int64_t units,
                                      std::int64_t shard_tokens, bool leave_out_duplicates) {
  std::vector<PlannedShard> plan;
  for (const Split split : splits) {
    Planner planner(split, shard_tokens, plan);
    for (std::int64_t unit = 0; unit < units; ++unit) {
      const std::vector<UnitDocument> documents = read_unit_documents(units_directory, unit, split);
      RisingSet left_out(read_duplicates(units_directory, unit, split, leave_out_duplicates));
      for (std::int64_t i = 0; i < std::ssize(documents); ++i) {
        if (!left_out.contains(i)) planner.add(unit, i, documents[static_cast<std::size_t>(i)].tokens);
      }
    }
  }
  return plan;
}

namespace {

/// Numbers, over all units of the split, of the documents that repeat an earlier one; of those whose hash is part
/// `part` of `parts`.
void append_repeated(const fs::path& directory, std::int64_t units, Split split, std::uint64_t part,
                     std::uint64_t parts, std::vector<std::int64_t>& repeated) {
  struct Entry {
    std::array<std::uint64_t, 2> hash;
    std::int64_t number;
    bool operator<(const Entry& other) const {
      return hash != other.hash ? hash < other.hash : number < other.number;
    }
  };
  std::vector<Entry> entries;
  std::int64_t number = 0;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    for (const UnitDocument& document : read_unit_documents(directory, unit, split)) {
      if (document.text_hash[0] % parts == part) entries.push_back({document.text_hash, number});
      ++number;
    }
  }
  std::sort(entries.begin(), entries.end());
  for (std::size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].hash == entries[i - 1].hash) repeated.push_back(entries[i].number);
  }
}

std::int64_t find_duplicates_of(const fs::path& directory, std::int64_t units, Split split,
                                std::int64_t hashes_at_once) {
  std::vector<std::int64_t> first{0};  // number of each unit's first document
  for (std::int64_t unit = 0; unit < units; ++unit) {
    first.push_back(first.back() + std::ssize(read_unit_documents(directory, unit, split)));
  }
  const auto parts = static_cast<std::uint64_t>(first.back() / hashes_at_once + 1);
  std::vector<std::int64_t> repeated;
  for (std::uint64_t part = 0; part < parts; ++part)
    append_repeated(directory, units, split, part, parts, repeated);
  std::sort(repeated.begin(), repeated.end());
  auto next = repeated.begin();
  for (std::int64_t unit = 0; unit < units; ++unit) {
    std::vector<std::int64_t> of_unit;
    for (; next != repeated.end() && *next < first[static_cast<std::size_t>(unit) + 1]; ++next) {
      of_unit.push_back(*next - first[static_cast<std::size_t>(unit)]);
    }
    const auto bytes = std::as_bytes(std::span(of_unit));
    write_whole_file(duplicates_name(directory, unit, split),
                     {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  return std::ssize(repeated);
}

}  // namespace

std::int64_t find_duplicates(const fs::path& units_directory, std::int64_t units,
                             std::int64_t hashes_at_once) {
  std::int64_t found = 0;
  for (const Split split : splits) found += find_duplicates_of(units_directory, units, split, hashes_at_once);
  return found;
}

void write_plan(const fs::path& file, const std::vector<PlannedShard>& plan) {
  Json list = Json::array();
  for (const PlannedShard& shard : plan) {
    Json spans = Json::array();
    for (const UnitSpan& span : shard.spans) spans.push_back({span.unit, span.begin, span.end});
    list.push_back({{"split", to_string(shard.split)},
                    {"file", shard.entry.file},
                    {"tokens", shard.entry.tokens},
                    {"documents", shard.entry.documents},
                    {"spans", spans}});
  }
  write_whole_file(file, json_dump(list));
}

std::vector<PlannedShard> read_plan(const fs::path& file) {
  std::vector<PlannedShard> plan;
  for (const Json& shard : parse_json<Json>(read_whole_file(file))) {
    PlannedShard& planned = plan.emplace_back();
    planned.split = parse_split(shard.at("split").get<std::string>());
    planned.entry = {shard.at("file").get<std::string>(), shard.at("tokens").get<std::int64_t>(),
                     shard.at("documents").get<std::int64_t>()};
    for (const Json& span : shard.at("spans")) {
      planned.spans.push_back(
          {span[0].get<std::int64_t>(), span[1].get<std::int64_t>(), span[2].get<std::int64_t>()});
    }
  }
  return plan;
}

namespace {

void append_span(const fs::path& units_directory, Split split, const UnitSpan& span,
                 bool leave_out_duplicates, std::int64_t vocab_size, ShardWriter& writer) {
  const std::vector<UnitDocument> documents = read_unit_documents(units_directory, span.unit, split);
  require(span.end <= std::ssize(documents), "unit {} has {} documents", span.unit, documents.size());
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < span.begin; ++i) first += documents[static_cast<std::size_t>(i)].tokens;
  UnitTokens tokens(units_directory, span.unit, split, vocab_size, first);
  RisingSet left_out(read_duplicates(units_directory, span.unit, split, leave_out_duplicates));
  std::vector<std::int32_t> document;
  for (std::int64_t i = span.begin; i < span.end; ++i) {
    const std::int64_t count = documents[static_cast<std::size_t>(i)].tokens;
    if (left_out.contains(i)) {
      tokens.skip(count);
      continue;
    }
    document.resize(static_cast<std::size_t>(count));
    tokens.read(document);
    writer.add_document(
        std::span(document).first(document.size() - 1));  // the writer adds the end-of-text token
  }
}

}  // namespace

void write_shard(const fs::path& directory, const fs::path& units_directory, const PlannedShard& shard,
                 const ShardInfo& shared, int compression, bool leave_out_duplicates) {
  const fs::path file = directory / shard.entry.file;
  if (fs::exists(file)) return;  // it has its name only when it is complete
  ShardWriter writer(file, shared, {.compression = compression});
  for (const UnitSpan& span : shard.spans) {
    append_span(units_directory, shard.split, span, leave_out_duplicates, shared.vocab_size, writer);
  }
  const ShardInfo written = writer.finish();
  require(written.tokens == shard.entry.tokens && written.documents == shard.entry.documents,
          "{}: {} tokens in {} documents, planned {} in {}", file.string(), written.tokens, written.documents,
          shard.entry.tokens, shard.entry.documents);
}

}  // namespace ratplus::data
