#include "data/prepare/portion_file.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/files/byte_stream.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

fs::path name_of(const fs::path& directory, std::int64_t number, const std::string& rest) {
  return directory / fmt::format("portion-{:06}{}", number, rest);
}

fs::path part_name(const fs::path& directory, std::int64_t number, Split split, const char* what) {
  return name_of(directory, number, fmt::format("-{}.{}", to_string(split), what));
}

bool is_narrow(std::int64_t vocab_size) {
  return vocab_size <= 65536;
}

}  // namespace

PortionWriter::PartFile::PartFile(const fs::path& file)
    : file_(file), out_(file, file, ByteWriter::Pages::kept) {}

void PortionWriter::PartFile::close() {
  out_.close();
  sync_path(file_);
}

PortionWriter::PortionWriter(fs::path directory, std::int64_t number, std::int64_t vocab_size)
    : directory_(std::move(directory)), number_(number), narrow_(is_narrow(vocab_size)) {
  fs::remove(name_of(directory_, number, ".json"));  // an older portion of this number is one no longer
  for (const Split split : {Split::train, Split::validation}) {
    parts_.push_back({PartFile(part_name(directory_, number, split, "tokens")),
                      PartFile(part_name(directory_, number, split, "documents"))});
  }
}

void PortionWriter::add(Split split, const TokenizedDocument& document, std::int32_t end_of_text) {
  const auto s = static_cast<std::size_t>(split);
  Part& part = parts_[s];
  if (narrow_) {
    std::vector<std::uint16_t> narrow(document.tokens.begin(), document.tokens.end());
    narrow.push_back(static_cast<std::uint16_t>(end_of_text));
    part.tokens.append(std::span<const std::uint16_t>(narrow));
  } else {
    part.tokens.append(std::span<const std::int32_t>(document.tokens));
    part.tokens.append(std::span<const std::int32_t>(&end_of_text, 1));
  }
  const PortionDocument entry{.tokens = std::ssize(document.tokens) + 1, .text_hash = document.text_hash};
  part.documents.append(std::span<const PortionDocument>(&entry, 1));
  tokens_[s] += entry.tokens;
  ++documents_[s];
}

void PortionWriter::finish(PortionInfo info) {
  for (Part& part : parts_) {
    part.tokens.close();
    part.documents.close();
  }
  const PlaceInPortion& first = info.first_repaired;
  const Json json{{"source", info.source},
                  {"tokens", tokens_},
                  {"documents", documents_},
                  {"bytes", info.bytes},
                  {"repaired_documents", info.repaired},
                  {"first_repaired", {first.part, first.line, first.offset}},
                  {"left_out_empty", info.left_out_empty},
                  {"lowest_position", info.lowest_position},
                  {"highest_position", info.highest_position}};
  write_whole_file(name_of(directory_, number_, ".json"), json_dump(json) + "\n");
}

std::optional<PortionInfo> read_portion_info(const fs::path& directory, std::int64_t number,
                                             const std::string& source) {
  const fs::path file = name_of(directory, number, ".json");
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  try {
    const Json json = parse_json<Json>(read_whole_file(file));
    const auto first = json.at("first_repaired").get<std::array<std::int64_t, 3>>();
    PortionInfo info{.source = json.at("source").get<std::string>(),
                     .tokens = json.at("tokens").get<std::array<std::int64_t, 2>>(),
                     .documents = json.at("documents").get<std::array<std::int64_t, 2>>(),
                     .bytes = json.at("bytes").get<std::int64_t>(),
                     .repaired = json.at("repaired_documents").get<std::int64_t>(),
                     .first_repaired = {first[0], first[1], first[2]},
                     .left_out_empty = json.at("left_out_empty").get<std::int64_t>(),
                     .lowest_position = json.at("lowest_position").get<double>(),
                     .highest_position = json.at("highest_position").get<double>()};
    if (info.source != source) return std::nullopt;
    return info;
  } catch (const Json::exception&) {
    return std::nullopt;  // damaged: the portion is done again
  }
}

std::vector<PortionDocument> read_portion_documents(const fs::path& directory, std::int64_t number,
                                                    Split split) {
  const fs::path file = part_name(directory, number, split, "documents");
  const std::string bytes = read_whole_file(file);
  if (bytes.size() % sizeof(PortionDocument) != 0) {
    fail("{}: damaged; remove {} and prepare again", file.string(), directory.string());
  }
  std::vector<PortionDocument> documents(bytes.size() / sizeof(PortionDocument));
  if (!bytes.empty()) std::memcpy(documents.data(), bytes.data(), bytes.size());
  return documents;
}

PortionTokens::PortionTokens(const fs::path& directory, std::int64_t number, Split split,
                             std::int64_t vocab_size, std::int64_t first)
    : file_(part_name(directory, number, split, "tokens")),
      narrow_(is_narrow(vocab_size)),
      stream_(open_bytes(file_, Packing::none, first * (narrow_ ? 2 : 4))) {}

void PortionTokens::read(std::span<std::int32_t> out) {
  raw_.resize(out.size() * (narrow_ ? 2 : 4));
  if (stream_->read(raw_) != raw_.size()) {
    fail("{}: shorter than it was written; remove {} and prepare again", file_.string(),
         file_.parent_path().string());
  }
  if (!narrow_) {
    std::memcpy(out.data(), raw_.data(), raw_.size());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t token = 0;
    std::memcpy(&token, raw_.data() + 2 * i, 2);
    out[i] = token;
  }
}

void PortionTokens::skip(std::int64_t tokens) {
  std::vector<std::int32_t> ignored(65536);
  while (tokens > 0) {
    const auto part = std::min<std::int64_t>(tokens, std::ssize(ignored));
    read(std::span(ignored).first(static_cast<std::size_t>(part)));
    tokens -= part;
  }
}

}  // namespace ratplus::data
