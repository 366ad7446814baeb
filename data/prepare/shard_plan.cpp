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

fs::path duplicates_name(const fs::path& directory, std::int64_t portion, Split split) {
  return directory / fmt::format("portion-{:06}-{}.duplicates", portion, to_string(split));
}

/// Numbers of the portion's documents that are left out, rising.
std::vector<std::int64_t> read_duplicates(const fs::path& directory, std::int64_t portion, Split split,
                                          bool any) {
  if (!any) return {};
  const std::string bytes = read_whole_file(duplicates_name(directory, portion, split));
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

  void add(std::int64_t portion, std::int64_t document, std::int64_t tokens) {
    if (!open_) {
      plan_.push_back({.split = split_, .entry = {.file = shard_name(split_, shards_++)}, .spans = {}});
      open_ = true;
    }
    PlannedShard& shard = plan_.back();
    if (shard.spans.empty() || shard.spans.back().portion != portion)
      shard.spans.push_back({portion, document, document});
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

std::vector<PlannedShard> plan_shards(const fs::path& portions_directory, std::int64_t portions,
                                      std::int64_t shard_tokens, bool leave_out_duplicates) {
  std::vector<PlannedShard> plan;
  for (const Split split : splits) {
    Planner planner(split, shard_tokens, plan);
    for (std::int64_t portion = 0; portion < portions; ++portion) {
      const std::vector<PortionDocument> documents =
          read_portion_documents(portions_directory, portion, split);
      RisingSet left_out(read_duplicates(portions_directory, portion, split, leave_out_duplicates));
      for (std::int64_t i = 0; i < std::ssize(documents); ++i) {
        if (!left_out.contains(i)) planner.add(portion, i, documents[static_cast<std::size_t>(i)].tokens);
      }
    }
  }
  return plan;
}

namespace {

/// Numbers, over all portions of the split, of the documents that repeat an earlier one; of those whose hash is part
/// `part` of `parts`.
void append_repeated(const fs::path& directory, std::int64_t portions, Split split, std::uint64_t part,
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
  for (std::int64_t portion = 0; portion < portions; ++portion) {
    for (const PortionDocument& document : read_portion_documents(directory, portion, split)) {
      if (document.text_hash[0] % parts == part) entries.push_back({document.text_hash, number});
      ++number;
    }
  }
  std::sort(entries.begin(), entries.end());
  for (std::size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].hash == entries[i - 1].hash) repeated.push_back(entries[i].number);
  }
}

std::int64_t find_duplicates_of(const fs::path& directory, std::int64_t portions, Split split,
                                std::int64_t hashes_at_once) {
  std::vector<std::int64_t> first{0};  // number of each portion's first document
  for (std::int64_t portion = 0; portion < portions; ++portion) {
    first.push_back(first.back() + std::ssize(read_portion_documents(directory, portion, split)));
  }
  const auto parts = static_cast<std::uint64_t>(first.back() / hashes_at_once + 1);
  std::vector<std::int64_t> repeated;
  for (std::uint64_t part = 0; part < parts; ++part)
    append_repeated(directory, portions, split, part, parts, repeated);
  std::sort(repeated.begin(), repeated.end());
  auto next = repeated.begin();
  for (std::int64_t portion = 0; portion < portions; ++portion) {
    std::vector<std::int64_t> of_portion;
    for (; next != repeated.end() && *next < first[static_cast<std::size_t>(portion) + 1]; ++next) {
      of_portion.push_back(*next - first[static_cast<std::size_t>(portion)]);
    }
    const auto bytes = std::as_bytes(std::span(of_portion));
    write_whole_file(duplicates_name(directory, portion, split),
                     {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  return std::ssize(repeated);
}

}  // namespace

std::int64_t find_duplicates(const fs::path& portions_directory, std::int64_t portions,
                             std::int64_t hashes_at_once) {
  std::int64_t found = 0;
  for (const Split split : splits)
    found += find_duplicates_of(portions_directory, portions, split, hashes_at_once);
  return found;
}

void write_plan(const fs::path& file, const std::vector<PlannedShard>& plan) {
  Json list = Json::array();
  for (const PlannedShard& shard : plan) {
    Json spans = Json::array();
    for (const PortionSpan& span : shard.spans) spans.push_back({span.portion, span.begin, span.end});
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

void append_span(const fs::path& portions_directory, Split split, const PortionSpan& span,
                 bool leave_out_duplicates, std::int64_t vocab_size, ShardWriter& writer) {
  const std::vector<PortionDocument> documents =
      read_portion_documents(portions_directory, span.portion, split);
  require(span.end <= std::ssize(documents), "portion {} has {} documents", span.portion, documents.size());
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < span.begin; ++i) first += documents[static_cast<std::size_t>(i)].tokens;
  PortionTokens tokens(portions_directory, span.portion, split, vocab_size, first);
  RisingSet left_out(read_duplicates(portions_directory, span.portion, split, leave_out_duplicates));
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

void write_shard(const fs::path& directory, const fs::path& portions_directory, const PlannedShard& shard,
                 const ShardInfo& shared, int compression, bool leave_out_duplicates) {
  const fs::path file = directory / shard.entry.file;
  if (fs::exists(file)) return;  // it has its name only when it is complete
  ShardWriter writer(file, shared, {.compression = compression});
  for (const PortionSpan& span : shard.spans) {
    append_span(portions_directory, shard.split, span, leave_out_duplicates, shared.vocab_size, writer);
  }
  const ShardInfo written = writer.finish();
  require(written.tokens == shard.entry.tokens && written.documents == shard.entry.documents,
          "{}: {} tokens in {} documents, planned {} in {}", file.string(), written.tokens, written.documents,
          shard.entry.tokens, shard.entry.documents);
}

}  // namespace ratplus::data
