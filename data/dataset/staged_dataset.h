// StagedDataset: a dataset written beside the one that it replaces, which stays until the new one is complete.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/files/file_lock.h"
#include "base/files/new_directories.h"
#include "data/dataset/manifest.h"

namespace ratplus::data {

class StagedDataset {
 public:
  /// Makes `output`, with the directories above it, and a hidden directory in it. Throws Error naming what cannot be
  /// made, or another process that stages a dataset there.
  explicit StagedDataset(const std::filesystem::path& output);
  /// Removes what was staged and the directories that were made, unless the dataset is published.
  ~StagedDataset();
  StagedDataset(const StagedDataset&) = delete;
  StagedDataset& operator=(const StagedDataset&) = delete;

  /// Where to write the shards.
  const std::filesystem::path& directory() const { return staging_; }
  /// Stages a copy of the tokenizer's file, if any, and publishes all.
  void publish(const Manifest& manifest, const std::filesystem::path& tokenizer);

 private:
  std::filesystem::path output_;
  std::filesystem::path staging_;
  NewDirectories made_;
  std::optional<FileLock> lock_;
};

/// Locks the directory `output` for one maker of datasets at a time, whichever command it is. Throws Error where another
/// process has it.
FileLock lock_output(const std::filesystem::path& output);

/// Puts the old dataset back in its place where a process was killed while it replaced that dataset, and removes the files
/// of the new one; otherwise nothing. Throws Error naming the file, or another process at work in `output`.
void undo_interrupted_publication(const std::filesystem::path& output);

/// Whether the directory holds an old dataset that undo_interrupted_publication would put back.
bool publication_interrupted(const std::filesystem::path& output);

/// Puts the files of a complete dataset in `staging` into `output`, in place of the one that is there. The manifest is
/// written here; the shards and, if it is not in `output` already, the tokenizer's file are in `staging`. Nothing but
/// renaming is left to do once the old dataset is touched: its files move aside, its manifest first, and the new
/// manifest comes last. Throws Error naming the file, with the old dataset back in its place.
void publish_dataset(const std::filesystem::path& staging, const std::filesystem::path& output,
                     const Manifest& manifest);

/// Throws Error for a tokenizer that is a pipe or a device: it is read once, and the dataset gets a copy.
void require_copyable(const std::filesystem::path& tokenizer);

/// Copies the tokenizer's file into `staging` by the manifest's name, unless it is the one in `output` under this name.
/// Throws Error naming the file where it is no longer the one that the manifest identifies.
void stage_tokenizer(const std::filesystem::path& tokenizer, const Manifest& manifest,
                     const std::filesystem::path& staging, const std::filesystem::path& output);

/// Undoes an interrupted publication, and throws Error where `output` holds a dataset, files with names of shards that no
/// manifest names, or a tokenizer's file of this name with other bytes than `tokenizer` ("" = none), and `force` is not
/// given.
void check_replaceable(const std::filesystem::path& output, const std::string& tokenizer_name,
                       const std::filesystem::path& tokenizer, bool force);

/// Throws Error for an input in `output` with the name of a shard, which the new dataset would replace.
void refuse_inputs_in(const std::filesystem::path& output, const std::vector<std::filesystem::path>& inputs);

}  // namespace ratplus::data
