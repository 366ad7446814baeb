#include "data/dataset/sample_shard.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files/crc32.h"
#include "base/files/hdf5.h"
#include "base/files/pending_file.h"

namespace ratplus::data {
namespace {

constexpr std::int64_t version = 1;
constexpr std::size_t samples_at_once = 64;  ///< written

SampleShardInfo read_sample_info(const hdf5::File& file) {
  const std::string name = file.file().string();
  if (!file.has_attribute("version") || !file.has("inputs") || !file.has("labels")) {
    fail(
        "{} holds no samples with labels (an HDF5 file, but without \"inputs\" or \"labels\"); make them "
        "with `ratplus "
        "samples`",
        name);
  }
  if (file.integer_attribute("version") != version) {
    fail("{}: version {} of samples, but this program reads version {}; make them again", name,
         file.integer_attribute("version"), version);
  }
  return {.samples = file.integer_attribute("samples"),
          .length = file.integer_attribute("length"),
          .vocab_size = file.integer_attribute("vocab_size"),
          .end_of_text = file.integer_attribute("end_of_text"),
          .tokenizer = file.string_attribute("tokenizer"),
          .crc32 = hdf5::checksum_attribute(file)};
}

}  // namespace

struct SampleShardReader::Impl {
  explicit Impl(const std::filesystem::path& path)
      : file(hdf5::File::open(path)),
        info(read_sample_info(file)),
        inputs(file.dataset("inputs")),
        labels(file.dataset("labels")) {
    const bool fits =
        info.length > 0 && inputs.size() == info.samples * info.length && labels.size() == inputs.size();
    if (!fits || !inputs.holds_integers() || !labels.holds_integers()) {
      fail("{}: holds {} inputs and {} labels, but says {} samples of {}; make the samples again",
           path.string(), inputs.size(), labels.size(), info.samples, info.length);
    }
  }

  hdf5::File file;
  SampleShardInfo info;
  hdf5::Dataset inputs;
  hdf5::Dataset labels;
  mutable bool written = false;  ///< known to have all chunks
};

SampleShardReader::SampleShardReader(const std::filesystem::path& file)
    : impl_(std::make_unique<Impl>(file)) {}
SampleShardReader::~SampleShardReader() = default;
SampleShardReader::SampleShardReader(SampleShardReader&&) noexcept = default;
SampleShardReader& SampleShardReader::operator=(SampleShardReader&&) noexcept = default;

const SampleShardInfo& SampleShardReader::info() const {
  return impl_->info;
}

void SampleShardReader::read(std::int64_t i, std::span<std::int32_t> inputs,
                             std::span<std::int32_t> labels) const {
  if (!impl_->written) {  // as ShardReader::read
    impl_->inputs.require_written();
    impl_->labels.require_written();
    impl_->written = true;
  }
  const std::int64_t begin = i * impl_->info.length;
  impl_->inputs.read(begin, inputs);
  impl_->labels.read(begin, labels);
  const std::int64_t vocab_size = impl_->info.vocab_size;
  const bool good =
      std::all_of(inputs.begin(), inputs.end(), [&](auto id) { return id >= 0 && id < vocab_size; }) &&
      std::all_of(labels.begin(), labels.end(),
                  [&](auto id) { return id == ignored_label || (id >= 0 && id < vocab_size); });
  if (!good) {
    fail("{}: sample {} has a token outside the vocabulary of {}; make the samples again",
         impl_->file.file().string(), i, vocab_size);
  }
}

void SampleShardReader::verify(const std::function<void(std::int64_t)>& progress) const {
  std::vector<std::int32_t> inputs(static_cast<std::size_t>(info().length));
  std::vector<std::int32_t> labels(inputs.size());
  std::uint32_t crc = 0;
  for (std::int64_t i = 0; i < info().samples; ++i) {
    read(i, inputs, labels);
    crc = crc32_of(crc32_of(crc, inputs), labels);
    progress(info().length);
  }
  if (info().crc32 && *info().crc32 != crc) {
    fail(
        "{}: damaged: its samples' checksum is {:08x}, and {:08x} was written; copy it again, or make the "
        "samples again",
        impl_->file.file().string(), crc, *info().crc32);
  }
}

struct SampleShardWriter::Impl {
  Impl(const std::filesystem::path& final_name, const SampleShardInfo& shared)
      : pending(final_name),
        info(shared),
        file(hdf5::File::create(pending.path(), final_name)),
        inputs(create("inputs", shared.vocab_size <= 65536 ? hdf5::Element::uint16 : hdf5::Element::uint32)),
        labels(create("labels", hdf5::Element::int32)) {
    info.samples = 0;
    info.crc32 = 0;
  }

  hdf5::Dataset create(const char* name, hdf5::Element element) {
    return file.create_dataset(
        name, element, 0,
        {.chunk = std::max<std::int64_t>(info.length, 4096), .checksum = true, .growable = true});
  }

  void flush() {
    const std::int64_t written = inputs.size();
    for (auto [dataset, buffer] : {std::pair(&inputs, &input_buffer), std::pair(&labels, &label_buffer)}) {
      dataset->resize(written + std::ssize(*buffer));
      dataset->write(written, std::span<const std::int32_t>(*buffer));
      buffer->clear();
    }
  }

  PendingFile pending;  // before the file: destroyed after it
  SampleShardInfo info;
  hdf5::File file;
  hdf5::Dataset inputs;
  hdf5::Dataset labels;
  std::vector<std::int32_t> input_buffer;
  std::vector<std::int32_t> label_buffer;
};

SampleShardWriter::SampleShardWriter(const std::filesystem::path& file, const SampleShardInfo& shared)
    : impl_(std::make_unique<Impl>(file, shared)) {}
SampleShardWriter::~SampleShardWriter() = default;
SampleShardWriter::SampleShardWriter(SampleShardWriter&&) noexcept = default;
SampleShardWriter& SampleShardWriter::operator=(SampleShardWriter&&) noexcept = default;

void SampleShardWriter::add(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels) {
  Impl& impl = *impl_;
  require(std::ssize(inputs) == impl.info.length && inputs.size() == labels.size(),
          "a sample of {} inputs, {} labels", inputs.size(), labels.size());
  impl.info.crc32 = crc32_of(crc32_of(*impl.info.crc32, inputs), labels);
  impl.input_buffer.insert(impl.input_buffer.end(), inputs.begin(), inputs.end());
  impl.label_buffer.insert(impl.label_buffer.end(), labels.begin(), labels.end());
  ++impl.info.samples;
  if (impl.input_buffer.size() >= samples_at_once * inputs.size()) impl.flush();
}

std::int64_t SampleShardWriter::samples() const {
  return impl_->info.samples;
}

SampleShardInfo SampleShardWriter::finish() {
  Impl& impl = *impl_;
  impl.flush();
  impl.file.set_attribute("version", version);
  impl.file.set_attribute("samples", impl.info.samples);
  impl.file.set_attribute("length", impl.info.length);
  impl.file.set_attribute("vocab_size", impl.info.vocab_size);
  impl.file.set_attribute("end_of_text", impl.info.end_of_text);
  impl.file.set_attribute("tokenizer", impl.info.tokenizer);
  impl.file.set_attribute("crc32", std::int64_t{*impl.info.crc32});
  impl.file.close();
  impl.pending.commit();
  const SampleShardInfo written = impl.info;
  impl_.reset();
  return written;
}

}  // namespace ratplus::data
