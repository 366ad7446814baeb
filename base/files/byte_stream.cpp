#include "base/files/byte_stream.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"

namespace ratplus {
namespace {

constexpr std::size_t packed_bytes = std::size_t{256} << 10;  ///< read at once from a packed file

class PlainStream : public ByteStream {
 public:
  PlainStream(const std::filesystem::path& file, std::int64_t begin)
      : name_(file.string()), descriptor_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0 || (begin > 0 && ::lseek(descriptor_, begin, SEEK_SET) < 0)) fail_reading();
  }
  ~PlainStream() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  PlainStream(const PlainStream&) = delete;
  PlainStream& operator=(const PlainStream&) = delete;

  std::size_t read(std::span<char> out) override {
    std::size_t filled = 0;
    while (filled < out.size()) {
      const ssize_t got = ::read(descriptor_, out.data() + filled, out.size() - filled);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail_reading();
      if (got == 0) break;
      filled += static_cast<std::size_t>(got);
    }
    consumed_ += static_cast<std::int64_t>(filled);
    return filled;
  }
  std::int64_t consumed() const override { return consumed_; }
  const std::string& name() const { return name_; }

 private:
  [[noreturn]] void fail_reading() const { fail("cannot read {}: {}", name_, std::strerror(errno)); }

  std::string name_;
  int descriptor_;
  std::int64_t consumed_ = 0;
};

/// Common to gzip and zstd: a buffer of packed bytes, refilled when it is used up.
class PackedStream : public ByteStream {
 public:
  explicit PackedStream(const std::filesystem::path& file) : plain_(file, 0), packed_(packed_bytes) {}

  std::int64_t consumed() const override {
    return plain_.consumed() - static_cast<std::int64_t>(size_ - at_);
  }

 protected:
  /// The packed bytes at hand; none at the end of the file.
  std::span<char> packed() {
    if (at_ == size_) {
      at_ = 0;
      size_ = plain_.read(packed_);
    }
    return std::span(packed_).subspan(at_, size_ - at_);
  }
  void use(std::size_t bytes) { at_ += bytes; }
  const std::string& name() const { return plain_.name(); }
  [[noreturn]] void fail_truncated(const char* kind) const {
    fail("{}: the {} data end in the middle: the file is truncated; download or copy it again", name(), kind);
  }
  [[noreturn]] void fail_behind(const char* kind) const {
    fail(
        "{}: other bytes follow the end of its {} data; remove them, or download or copy the file "
        "again",
        name(), kind);
  }
  [[noreturn]] void fail_damaged(const char* kind, const char* reason) const {
    fail("{}: not sound {} data ({}); download or copy it again", name(), kind, reason);
  }

 private:
  PlainStream plain_;
  std::vector<char> packed_;
  std::size_t at_ = 0;
  std::size_t size_ = 0;
};

class GzipStream : public PackedStream {
 public:
  explicit GzipStream(const std::filesystem::path& file) : PackedStream(file) {
    constexpr int gzip_format = 16 + MAX_WBITS;
    require(inflateInit2(&state_, gzip_format) == Z_OK, "zlib cannot start");
  }
  ~GzipStream() override { inflateEnd(&state_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  std::size_t read(std::span<char> out) override {
    std::size_t filled = 0;
    while (filled < out.size()) {
      const std::span<char> in = packed();
      if (in.empty()) {
        if (inside_) fail_truncated("gzip");
        break;
      }
      if (!inside_ && in.front() == '\0') {  // padding behind a member, as on tapes and from `dd`
        use(static_cast<std::size_t>(std::find_if(in.begin(), in.end(), [](char c) { return c != 0; }) -
                                     in.begin()));
        continue;
      }
      if (!inside_ && in.front() != '\x1F') fail_behind("gzip");
      const std::span<char> rest = out.subspan(filled, std::min<std::size_t>(out.size() - filled, 1U << 30));
      state_.next_in = reinterpret_cast<Bytef*>(in.data());
      state_.avail_in = static_cast<uInt>(in.size());
      state_.next_out = reinterpret_cast<Bytef*>(rest.data());
      state_.avail_out = static_cast<uInt>(rest.size());
      const int status = inflate(&state_, Z_NO_FLUSH);
      if (status != Z_OK && status != Z_STREAM_END) {
        if (members_ > 0 && state_.total_in <= 2) fail_behind("gzip");
        fail_damaged("gzip", state_.msg != nullptr ? state_.msg : zError(status));
      }
      use(in.size() - state_.avail_in);
      filled += rest.size() - state_.avail_out;
      inside_ = status != Z_STREAM_END;
      if (!inside_) ++members_;
      if (!inside_) inflateReset(&state_);  // another member may follow, as `cat a.gz b.gz` makes
    }
    return filled;
  }

 private:
  z_stream state_{};
  std::int64_t members_ = 0;  ///< read to their ends
  bool inside_ = true;        ///< a member; an empty file is none, and so truncated
};

class ZstdStream : public PackedStream {
 public:
  explicit ZstdStream(const std::filesystem::path& file) : PackedStream(file), state_(ZSTD_createDStream()) {
    require(state_ != nullptr, "zstd cannot start");
    // Windows of up to 2 GiB (zstd --long=31), which large archives use.
    ZSTD_DCtx_setParameter(state_, ZSTD_d_windowLogMax, 31);
  }
  ~ZstdStream() override { ZSTD_freeDStream(state_); }
  ZstdStream(const ZstdStream&) = delete;
  ZstdStream& operator=(const ZstdStream&) = delete;

  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    while (to.pos < to.size) {
      const std::span<char> in = packed();
      ZSTD_inBuffer from{in.data(), in.size(), 0};
      const std::size_t before = to.pos;
      if (in.empty() && !inside_) break;
      const std::size_t status = ZSTD_decompressStream(state_, &to, &from);
      frame_bytes_ += from.pos;
      if (ZSTD_getErrorCode(status) == ZSTD_error_prefix_unknown && frames_ > 0) fail_behind("zstd");
      if (ZSTD_isError(status) != 0) fail_damaged("zstd", ZSTD_getErrorName(status));
      use(from.pos);
      inside_ = status != 0;
      if (!inside_) ++frames_, frame_bytes_ = 0;
      if (in.empty() && inside_ && frames_ > 0 && frame_bytes_ < magic_bytes) fail_behind("zstd");
      // At the end of the file the decoder may still hold bytes back; where it has none, the frame is cut off.
      if (in.empty() && inside_ && to.pos == before) fail_truncated("zstd");
    }
    return to.pos;
  }

 private:
  static constexpr std::size_t magic_bytes = 4;
  ZSTD_DStream* state_;
  std::int64_t frames_ = 0;      ///< read to their ends
  std::size_t frame_bytes_ = 0;  ///< of the frame that is being read, packed
  bool inside_ = true;           ///< a frame
};

}  // namespace

std::unique_ptr<ByteStream> open_bytes(const std::filesystem::path& file, Packing packing,
                                       std::int64_t begin) {
  require(begin == 0 || packing == Packing::none, "a packed file is read from its beginning");
  switch (packing) {
    case Packing::gzip:
      return std::make_unique<GzipStream>(file);
    case Packing::zstd:
      return std::make_unique<ZstdStream>(file);
    case Packing::none:
      break;
  }
  return std::make_unique<PlainStream>(file, begin);
}

}  // namespace ratplus
