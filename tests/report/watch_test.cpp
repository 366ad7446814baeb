#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/report/terminal_chart.h"
#include "lib/report/warnings.h"
#include "lib/report/watch_frame.h"
#include "tests/report/run_fixture.h"

namespace ratplus::report {
namespace {

constexpr TerminalStyle plain{.colour = false, .braille = true};

RunMetrics running(int steps, double now) {
  RunMetrics run;
  run.directory = "runs/a";
  run.name = "a";
  run.steps = 400;
  run.steps_a_line = 10;
  run.time = now;
  run.seconds_left = 600;
  for (int step = 10; step <= steps; step += 10) {
    run.add_step({step, step * 1000, {{"64,0,0", 5 + 10.0 / step}, {"dense", 4 + 10.0 / step}}});
    run.add("gradient_norm", "dense", step, 0.5);
    run.add("tokens_per_second", "", step, 12'345);
    run.add("step_seconds", "", step, 0.5);
    run.add("data_wait_share", "", step, 0.01);
  }
  return run;
}

std::string text_of(const std::vector<TerminalLine>& lines, const TerminalStyle& style = plain) {
  std::string text;
  for (const auto& line : lines) text += to_text(line, style) + "\n";
  return text;
}

bool says(const std::vector<std::string>& warnings, const std::string& part) {
  for (const auto& warning : warnings) {
    if (warning.find(part) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("every frame is as large as the terminal, at most, whatever its size") {
  const RunMetrics run = running(200, 1000);
  const WatchedRun watched{
      run, "pretrain, joint", {"one", "two", "a very " + std::string(300, 'l') + "ong line"}, 1003};
  for (std::size_t columns : {1, 7, 29, 30, 41, 80, 100, 131, 300}) {
    for (std::size_t rows : {1, 2, 3, 6, 9, 13, 14, 20, 24, 50, 100}) {
      CAPTURE(columns);
      CAPTURE(rows);
      const auto frame = make_watch_frame(watched, columns, rows, plain);
      CHECK(frame.size() <= rows);
      for (const auto& line : frame) CHECK(columns_of(line) == columns);
    }
  }
}

TEST_CASE("a frame says how far the run is, its values and when it ends") {
  const RunMetrics run = running(200, 1000);
  const std::string text =
      text_of(make_watch_frame({run, "pretrain, joint", {"saved it"}, 1003}, 100, 40, plain));
  for (const char* part :
       {"runs/a", "pretrain, joint", "step 200 of 400", "50%", "9 min 57 s left", "3 s ago", "12.3k tokens/s",
        "Training loss", "Tokens a second", "saved it", "dense 4.0500"}) {
    CAPTURE(part);
    CHECK(text.find(part) != std::string::npos);
  }
  CHECK(text.find("warning") == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
}

TEST_CASE("a run without a line yet, and one that has finished") {
  RunMetrics none;
  none.directory = "runs/young";
  CHECK(text_of(make_watch_frame({none, "", {}, 0}, 80, 24, plain)).find("waiting for the run") !=
        std::string::npos);
  RunMetrics done = running(400, 1000);
  done.saved_step = 400;
  CHECK(done.finished());
  const std::string text = text_of(make_watch_frame({done, "", {}, 99'000}, 80, 24, plain));
  CHECK(text.find("finished") != std::string::npos);
  CHECK(text.find("warning") == std::string::npos);  // a finished run may be silent
  CHECK(text.find(" left") == std::string::npos);
}

TEST_CASE("warnings") {
  CHECK(find_warnings(running(200, 1000), 1010).empty());
  CHECK(find_warnings(running(200, 1000), 900).empty());  // a clock that is behind
  CHECK(says(find_warnings(running(200, 1000), 1200), "no line for 3 min 20 s, and there was one every 5 s"));

  RunMetrics diverged = running(200, 1000);
  diverged.add_step({210, 210'000, {{"dense", std::numeric_limits<double>::quiet_NaN()}}});
  CHECK(says(find_warnings(diverged, 1001), "loss of dense is not finite at step 210"));

  RunMetrics slow = running(200, 1000);
  for (int step = 210; step <= 240; step += 10) slow.add("tokens_per_second", "", step, 5000);
  for (int step = 210; step <= 240; step += 10) slow.add("data_wait_share", "", step, 0.6);
  CHECK(says(find_warnings(slow, 1001), "throughput has fallen to 5.00k tokens/s, 41% of its median"));
  CHECK(says(find_warnings(slow, 1001), "wait for data 60.0%"));

  // Where the run judges itself, by its own limits, nothing is judged again.
  slow.health = run::HealthMetrics{};
  CHECK(find_warnings(slow, 1001).empty());
}

TEST_CASE("a sentence is broken between words, nothing of it is lost, and no line is longer than asked") {
  CHECK(wrap_words("", 10) == std::vector<std::string>{""});
  CHECK(wrap_words("two words", 9) == std::vector<std::string>{"two words"});
  CHECK(wrap_words("two words", 8) == std::vector<std::string>{"two", "words"});
  CHECK(wrap_words("in /a/long/path there", 6) ==
        std::vector<std::string>{"in", "/a/lon", "g/path", "there"});
  CHECK(wrap_words("\u00e9\u00e9 \u00e9", 1) == std::vector<std::string>{"\u00e9", "\u00e9", "\u00e9"});
}

TEST_CASE("how a run ended takes the place of when it will end, and of its silence") {
  RunMetrics run = running(200, 1000);
  CHECK(describe_end(run).empty());
  run.end = run::RunEnd{.how = run::RunEnd::How::stopped, .step = 204, .signal = "SIGTERM", .time = 1001};
  CHECK(describe_end(run) == "stopped by SIGTERM at step 204, saved; resume with --resume");
  const auto text = text_of(make_watch_frame({run, "", {}, 9001}, 80, 24, plain));
  CHECK(text.find("stopped 2 h 13 min ago") != std::string::npos);
  CHECK(text.find("stopped by SIGTERM at step 204, saved; resume with --resume") != std::string::npos);
  CHECK(text.find("warning") == std::string::npos);
  CHECK(text.find(" left") == std::string::npos);

  run.end = run::RunEnd{.how = run::RunEnd::How::failed, .message = std::string(200, 'm') + " end"};
  const auto failed = text_of(make_watch_frame({run, "", {}, 9001}, 80, 24, plain));
  CHECK(failed.find("failed: m") == std::string::npos);  // broken before a word that fills lines
  CHECK(failed.find(" end") != std::string::npos);

  run.saved_step = run.steps;  // finished, whatever a later signal did; but not whatever failed
  CHECK(describe_end(run).starts_with("failed: "));
  run.end->how = run::RunEnd::How::stopped;
  CHECK(describe_end(run).empty());
}

TEST_CASE("warnings that the run itself has made, and updates that it left out") {
  RunFixture fixture("watch_health");
  const auto step = [](const std::string& flags) {
    return R"({"kind":"step","step":10,"tokens":1000,"updates":[{"pattern":"dense","loss":4}],)"
           R"("tokens_per_second":500,"health":{"rank_seconds":[1,2],"slowest_rank":1,"slowest_host":"node07",)"
           R"("lag_seconds":0.5,"data_wait_share":0.25,"pace_ratio":0.4,)" +
           flags + "}}\n";
  };
  fixture.metrics(step(R"("straggler":true,"slowdown":true,"data_wait":true)"));
  fixture.append(
      R"({"kind":"not_finite","time":5,"step":11,"update":1,"pattern":"64,0,0","loss":null,"gradient_norm":null,)"
      R"("updated":false,"file":"a.json"})"
      "\n");
  const auto warnings = find_warnings(read_metrics(fixture.directory()), 6);
  CHECK(warnings.size() == 4);
  for (const char* part : {"an update was left out; the last in step 11 (D = 64), its loss and gradient norm "
                           "not finite, its samples in a.json",
                           "rank 1 on node07", "500 tokens/s, 40% of its median", "wait for data 25.0%"}) {
    CAPTURE(std::string(part));
    CHECK(says(warnings, part));
  }
  fixture.append(step(R"("straggler":false,"slowdown":false,"data_wait":false)"));
  CHECK(find_warnings(read_metrics(fixture.directory()), 6).size() == 1);
}

TEST_CASE("a chart's dots stand where the values are") {
  PanelLine line;
  line.curve = {{0, 0}, {100, 4}};
  line.last = 4;
  const Panel panel{.title = "A line", .unit = Unit::plain, .lines = {line}};
  const auto lines = draw_terminal_chart(panel, 30, 7, plain);  // 20 x 5 characters: 40 x 20 dots
  REQUIRE(lines.size() == 7);
  const std::string top = to_text(lines[1], plain), bottom = to_text(lines[5], plain);
  CHECK(top.find("4 ") != std::string::npos);
  CHECK(to_text(lines[1], plain).ends_with(" ") == false);
  CHECK(bottom.ends_with(" "));  // the line is at the left there
  CHECK(bottom.find("0 ") != std::string::npos);
  for (const auto& drawn : lines) CHECK(columns_of(drawn) == 30);
  const auto ascii = text_of(draw_terminal_chart(panel, 30, 7, {.colour = false, .braille = false}));
  for (const char c : ascii) CHECK(static_cast<unsigned char>(c) < 0x80);
  CHECK(std::ranges::count(ascii, '*') >= 20 + 1);
}

TEST_CASE("what a log or a name holds cannot command the terminal") {
  const RunMetrics run = running(200, 1000);
  const std::string bad =
      "\x1b]0;title\x07 \xc2\x9b"
      "31m \xff\r\n";
  const std::string text = text_of(make_watch_frame({run, bad, {bad}, 1003}, 120, 40, plain));
  for (const char* part : {"\x1b", "\x07", "\r", "\xff", "\xc2\x9b"})
    CHECK(text.find(part) == std::string::npos);
}

TEST_CASE("colours are balanced, and leave the text as it is") {
  const TerminalLine line = {{"loss", Ink::line1}, {" 4"}};
  CHECK(to_text(line, plain) == "loss 4");
  CHECK(to_text(line, {.colour = true}) == "\x1b[33mloss\x1b[0m 4");
  CHECK(columns_of("\u2801\u00e9a") == 3);
  CHECK(to_text(fit({{"\u2801\u00e9abc"}}, 3), plain) == "\u2801\u00e9\u2026");
}

TEST_CASE("a text that has no room is cut between words, and says so") {
  CHECK(shortened("loss 6.0129 here", 40) == "loss 6.0129 here");
  CHECK(shortened("loss 6.0129 here", 13, "\u2026") == "loss 6.0129 \u2026");
  CHECK(shortened("loss 6.0129 here", 10, "\u2026") == "loss \u2026");
  CHECK(shortened("loss 6.0129 here", 10) == "loss ...");
  CHECK(shortened("/a/path/that/is/longer/than/any/number", 12) == "/a/path/t...");
  CHECK(shortened("abc", 2, "\u2026") == "a\u2026");
  CHECK(shortened_within("a-name-that-ends-in-d64", 13) == "a-name\u2026in-d64");
  CHECK(to_text(fit({{"\u65e5\u672c\u8a9e"}}, 4), plain) ==
        "\u65e5\u2026 ");  // a half of the second has no place
  CHECK(columns_of("\u65e5e\u0301") == 3);
  CHECK(padded_left("\u65e5", 3) == " \u65e5");
}

TEST_CASE("no number of a frame or of a chart's title is cut, however narrow the terminal is") {
  RunMetrics run = running(200, 1000);
  run.directory = "runs/a-name-that-is-rather-long";
  run.previous_starts = 2;
  std::vector<PatternLoss> losses;
  for (int d = 0; d < 12; ++d) losses.push_back({fmt::format("{},0,4", 2 << d), 6.0129});
  run.add_validation({200, 200'000, losses});
  for (std::size_t columns = 24; columns < 120; ++columns) {
    CAPTURE(columns);
    std::string text = text_of(make_watch_frame({run, "pretrain, joint", {}, 1003}, columns, 60, plain));
    const auto title = text.find("Training loss");
    if (title != std::string::npos) text.resize(text.find('\n', title) + 1);  // below it are axes
    CHECK(std::count(text.begin(), text.end(), '6') >= 12);
    for (const std::string number : {"6.0129", "5.0500", "4.0500", "12.3k"}) {
      const auto beginning = number.substr(0, 3);
      for (auto at = text.find(beginning); at != std::string::npos; at = text.find(beginning, at + 1))
        CHECK(text.substr(at, number.size()) == number);
    }
  }
}

TEST_CASE("a chart in the terminal draws the lines that have a colour of their own, and counts the others") {
  Panel panel{.title = "Validation loss", .unit = Unit::nats, .lines = {}};
  for (std::size_t kind = 0; kind < 12; ++kind) {
    PanelLine line;
    line.kind = kind;
    line.label = fmt::format("D = {}", 2 << kind);
    line.curve = {{0, 5}, {100, static_cast<double>(kind)}};
    line.last = static_cast<double>(kind);
    panel.lines.push_back(line);
  }
  const auto lines = draw_terminal_chart(panel, 60, 12, plain);
  CHECK(to_text(lines[0], plain).find("D = 4 1.0000   +10") != std::string::npos);
  CHECK(text_of(lines).find("\n      8") == std::string::npos);  // 0 to 7 are drawn
}

}  // namespace ratplus::report
