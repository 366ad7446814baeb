#include "kernels/pattern.h"

#include <doctest/doctest.h>

#include <string>

#include "base/error.h"

using namespace ratplus;

TEST_CASE("patterns are written and read back") {
  for (const Pattern& pattern : {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 256, 4},
                                 Pattern{Pattern::no_dilation, 64, 0}, Pattern{1, 3, 0}}) {
    CHECK(parse_pattern(to_string(pattern)) == pattern);
  }
  CHECK(to_string(Pattern{16, 256, 4}) == "16,256,4");
  CHECK(to_string(Pattern{Pattern::no_dilation, 256, 4}) == "none,256,4");
  CHECK(to_string(Pattern{}) == "dense");
  CHECK(parse_pattern("-1,64,0") == Pattern{Pattern::no_dilation, 64, 0});
  CHECK(parse_pattern(" 16 , 256, 4 ") == Pattern{16, 256, 4});
  CHECK(parse_pattern("D = 16, W = 256, I = 4") == Pattern{16, 256, 4});
  CHECK(parse_pattern(" D=16,I=4 ") == Pattern{16, 0, 4});
  CHECK(parse_pattern("D\u00a0=\u00a016, W\u00a0=\u00a0256") == Pattern{16, 256, 0});  // from report.html
  CHECK(parse_pattern("no dilation, W = 64") == Pattern{Pattern::no_dilation, 64, 0});
}

TEST_CASE("a bad pattern says what is wrong") {
  const auto message = [](const char* text) -> std::string {
    try {
      parse_pattern(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message("16,256").find("dilation,window,sinks") != std::string::npos);
  CHECK(message("16,256,4,1").find("dilation,window,sinks") != std::string::npos);
  CHECK(message("").find("dilation,window,sinks") != std::string::npos);
  CHECK(message("16,x,4").find("window is \"x\"") != std::string::npos);
  CHECK(message("16,,4").find("window is \"\"") != std::string::npos);
  CHECK(message("16,256,4k").find("sinks is \"4k\"") != std::string::npos);
  for (const char* zero : {"0,1,1", "00,1,1", "-0,1,1"}) {
    CHECK(message(zero).find("write none for no dilation") != std::string::npos);
  }
  CHECK(message("-2,1,1").find("dilation is -2") != std::string::npos);
  CHECK(message("16,-1,1").find("window is -1") != std::string::npos);
  CHECK(message("16,1,-1").find("sinks is -1") != std::string::npos);
  CHECK(message("W = 64").find("D is missing") != std::string::npos);
  CHECK(message("D = 16, D = 4").find("D is given twice") != std::string::npos);
  CHECK(message("no dilation, D = 4").find("D is given twice") != std::string::npos);
  CHECK(message("D = 16, S = 4").find("\"S = 4\" is none of") != std::string::npos);
  CHECK(message("D = 16, 4").find("\"4\" is none of") != std::string::npos);
  CHECK(message("D = 16,").find("\"\" is none of") != std::string::npos);
  CHECK(message("D = 16, = 4").find("\"= 4\" is none of") != std::string::npos);
  CHECK(message("D = x").find("dilation is \"x\"") != std::string::npos);
  CHECK(message("D = 0").find("at least 1") != std::string::npos);
  CHECK(message("D = 16, W = -1").find("window is -1") != std::string::npos);
  CHECK_THROWS_WITH_AS(validate(Pattern{1, -5, 0}, "job.pattern"),
                       "job.pattern: the window is -5; it is at least 0", Error);
}

TEST_CASE("attends is the definition of docs/model.md, section 6") {
  const Pattern pattern{4, 2, 1};
  for (std::int64_t t = 0; t < 20; ++t) {
    for (std::int64_t s = 0; s < 22; ++s) {
      const bool expected = s <= t && ((s + 1) % 4 == 0 || t - s <= 2 || s < 1);
      CHECK(pattern.attends(t, s) == expected);
    }
  }
  CHECK_FALSE(Pattern{Pattern::no_dilation, 0, 0}.attends(5, 3));
  CHECK(Pattern{}.attends(5, 0));
}

TEST_CASE("attended pairs are those that Pattern::attends counts") {
  constexpr std::int64_t none = Pattern::no_dilation;
  for (const Pattern& pattern :
       {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 32, 4}, Pattern{none, 20, 3}, Pattern{3, 2, 1},
        Pattern{none, 0, 5}, Pattern{7, 17, 70}, Pattern{2, 0, 0}, Pattern{5, 0, 40}, Pattern{400, 5, 1},
        Pattern{none, 0, 0}, Pattern{1, 4, 2}}) {
    for (const std::int64_t tokens : {0, 1, 2, 5, 18, 64, 65, 130}) {
      CAPTURE(to_string(pattern));
      CAPTURE(tokens);
      std::int64_t pairs = 0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t k = 0; k <= t; ++k) pairs += pattern.attends(t, k) ? 1 : 0;
      }
      CHECK(attended_pairs(pattern, tokens) == static_cast<double>(pairs));
    }
  }
}
