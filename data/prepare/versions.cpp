#include "data/prepare/versions.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <libdeflate.h>
#include <pcre2.h>
#include <simdjson.h>
#include <unicode/uversion.h>
#include <zlib.h>
#include <zstd.h>

#include <array>
#include <string>

#include "base/files/hdf5.h"

// What a macro stands for, as text.
#define TEXT_OF_WORDS(words) #words
#define TEXT_OF(macro) TEXT_OF_WORDS(macro)

namespace ratplus::data {
namespace {

std::string icu_version() {
  UVersionInfo version;
  u_getVersion(version);
  std::array<char, U_MAX_VERSION_STRING_LENGTH> text{};
  u_versionToString(version, text.data());
  return text.data();
}

std::string pcre2_version() {
  std::array<char, 64> text{};
  pcre2_config(PCRE2_CONFIG_VERSION, text.data());
  return text.data();
}

}  // namespace

std::vector<LibraryVersion> data_versions() {
  return {{"HDF5", hdf5::version()},
          {"zlib", zlibVersion()},
          {"zstd", ZSTD_versionString()},
          {"ICU", icu_version()},
          {"PCRE2", pcre2_version()},
          {"simdjson", TEXT_OF(SIMDJSON_VERSION)},
          {"libdeflate", LIBDEFLATE_VERSION_STRING}};
}

}  // namespace ratplus::data
