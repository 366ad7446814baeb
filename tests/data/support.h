// What the tests of data/ share: scratch directories, small files and datasets, text, error messages.
#pragma once

#include <hdf5.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"
#include "data/dataset/shard.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::test {

using Scratch = ScratchDirectory;

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

/// Gives an integer attribute of an HDF5 file another value, as damage.
inline void set_attribute(const std::filesystem::path& file, const char* name, std::int64_t value) {
  const hid_t opened = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t attribute = H5Aopen(opened, name, H5P_DEFAULT);
  const bool written = H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0;
  H5Aclose(attribute);
  if (H5Fclose(opened) < 0 || !written) throw std::runtime_error("cannot change " + file.string());
}

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// English-looking text: words of a Zipf-like distribution, sentences, lines.
inline std::string prose(unsigned seed, int words) {
  static const std::vector<std::string> vocabulary{
      "the",        "of",     "and",      "a",       "to",      "in",     "model",    "token",
      "recurrence", "gate",   "window",   "attends", "sparse",  "dense",  "position", "layer",
      "gradient",   "memory", "sequence", "cache",   "every",   "learns", "between",  "weights",
      "carefully",  "reader", "12",       "2048",    "whether", "because"};
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < words; ++i) {
    const auto rank = std::min<std::size_t>(random() % vocabulary.size(), random() % vocabulary.size());
    text += vocabulary[rank];
    text += i % 11 == 10 ? (i % 77 == 76 ? ".\n" : ". ") : " ";
  }
  return text;
}

/// A dataset whose training stream is 3, 4, 5, ... with `end_of_text` (2) at the documents' ends: document i
/// of a shard has lengths[shard][i] tokens, its end-of-text token included. Every token tells its place.
inline data::Manifest write_counting_dataset(const std::filesystem::path& directory,
                                             const std::vector<std::vector<int>>& lengths) {
  data::Manifest manifest{.vocab_size = 60000,
                          .end_of_text = 2,
                          .tokenizer = "test",
                          .tokenizer_file = {},
                          .source = {},
                          .sample_length = 0,
                          .train = {},
                          .validation = {}};
  const data::ShardInfo shared{.vocab_size = 60000, .end_of_text = 2, .tokenizer = "test"};
  std::int32_t next = 3;
  for (const auto& shard : lengths) {
    const std::string name = "train-" + std::to_string(manifest.train.size()) + ".h5";
    data::ShardWriter writer(directory / name, shared, {.compression = 0, .chunk_tokens = 16});
    for (const int length : shard) {
      std::vector<std::int32_t> document;
      for (int i = 0; i < length - 1; ++i) document.push_back(next++);
      ++next;  // the place of the end-of-text token
      writer.add_document(document);
    }
    const data::ShardInfo info = writer.finish();
    manifest.train.push_back({name, info.tokens, info.documents});
  }
  data::write_manifest(directory, manifest);
  return manifest;
}

}  // namespace ratplus::test
