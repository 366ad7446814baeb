#include "lib/report/chart.h"

#include <doctest/doctest.h>
#include <fmt/core.h>
#include <set>

#include <cmath>
#include <limits>
#include <regex>

#include "base/files/pending_file.h"
#include "tests/report/run_fixture.h"

namespace ratplus::report {
namespace {

/// A run whose losses fall from `first` to `last`, validated at every tenth of its steps.
RunMetrics falling_run(const std::string& name, const std::string& pattern, double first, double last,
                       int steps) {
  RunMetrics run;
  run.directory = "runs/" + name;
  run.name = name;
  for (int step = 1; step <= steps; ++step) {
    const double loss = last + (first - last) * std::exp(-5.0 * step / steps);
    run.add_step({step, step * 1000, {{pattern, loss + 0.05 * std::sin(11.0 * step)}}});
    if (step % std::max(steps / 10, 1) == 0) {
      run.add_validation({step, step * 1000, {{pattern, loss}, {"dense", loss - 0.1}}});
    }
  }
  return run;
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// Every element that is opened is closed, in order, and nothing stands after the outermost one.
bool well_formed(const std::string& xml) {
  std::vector<std::string> open;
  const std::regex tag(R"(<(/?)([A-Za-z]+)((?:[^<>"]|"[^"<]*")*?)(/?)>)");
  std::size_t end = 0;
  for (std::sregex_iterator it(xml.begin(), xml.end(), tag), none; it != none; ++it) {
    const auto& match = *it;
    const std::string between = xml.substr(end, static_cast<std::size_t>(match.position()) - end);
    if (between.find_first_of("<>") != std::string::npos) return false;
    end = static_cast<std::size_t>(match.position() + match.length());
    if (match[1].length() > 0) {
      if (open.empty() || open.back() != match[2]) return false;
      open.pop_back();
    } else if (match[4].length() == 0) {
      open.push_back(match[2]);
    }
  }
  return open.empty() && xml.substr(end) == "\n";
}

/// All values of an attribute.
std::vector<double> values_of(const std::string& svg, const std::string& attribute) {
  std::vector<double> values;
  const std::regex pattern(" " + attribute + "=\"(-?[0-9.]+)\"");
  for (std::sregex_iterator it(svg.begin(), svg.end(), pattern), none; it != none; ++it) {
    values.push_back(std::stod((*it)[1]));
  }
  return values;
}

}  // namespace

TEST_CASE("one run: its curves, marks and last values") {
  const std::string svg = draw_loss_chart({falling_run("pretrain", "64,0,0", 8, 4, 100)});
  CHECK(well_formed(svg));
  CHECK(svg.find("Loss of pretrain") != std::string::npos);
  CHECK(svg.find(">D = 64</text>") != std::string::npos);
  CHECK(svg.find(">dense</text>") != std::string::npos);
  CHECK(svg.find("tokens (thousands)") != std::string::npos);
  const double last = 4 + 4 * std::exp(-5.0);
  CHECK(svg.find(fmt::format(">{:.3f}</text>", last)) != std::string::npos);
  CHECK(svg.find(fmt::format(">{:.3f}</text>", last - 0.1)) != std::string::npos);
  CHECK(count(svg, "<circle") == 10 + 2);   // dense validations, and the legend's two
  CHECK(count(svg, "<polyline") == 2 + 2);  // training as logged and averaged; validations of two patterns
}

TEST_CASE("the picture stands alone and everything is inside it") {
  const std::string svg =
      draw_loss_chart({falling_run("a", "dense", 8, 4, 50), falling_run("b", "16,0,4", 5, 4.2, 50),
                       falling_run("c", "64,0,4", 5, 4.3, 50), falling_run("d", "8,0,4", 5, 4, 1)});
  CHECK(well_formed(svg));
  CHECK(svg.find("<script") == std::string::npos);
  CHECK(svg.find("<style") == std::string::npos);
  CHECK(count(svg, "http") == 1);  // the SVG namespace
  const double height = values_of(svg, "height").front();
  const double width = values_of(svg, "width").front();
  for (const char* attribute : {"x", "x1", "x2", "cx"}) {
    for (const double x : values_of(svg, attribute)) CHECK((x >= 0 && x <= width));
  }
  for (const char* attribute : {"y", "y1", "y2", "cy"}) {
    for (const double y : values_of(svg, attribute)) CHECK((y >= 0 && y <= height));
  }
}

TEST_CASE("several runs: a panel each, and the first one's dense loss for comparison") {
  const RunMetrics pretrain = falling_run("pretrain", "64,0,0", 8, 4, 100);
  const std::string svg = draw_loss_chart({pretrain, falling_run("adapt-d16", "16,0,4", 4.6, 4.2, 30),
                                           falling_run("adapt-d64", "64,0,4", 4.6, 4.3, 30)});
  for (const char* name : {">pretrain<", ">adapt-d16<", ">adapt-d64<"}) CHECK(count(svg, name) == 1);
  CHECK(svg.find("last dense validation of pretrain") != std::string::npos);
  CHECK(count(svg, "stroke-dasharray=\"7 5\"") ==
        1 + 2);  // the legend's, and one in each adapted run's panel
  CHECK(svg.find("Loss of the runs in runs") != std::string::npos);
}

TEST_CASE("names too long for the picture are cut in their middle, in its title and its legend too") {
  const std::string name = std::string(90, 'm') + "-end";
  const auto first = falling_run(name, "16,0,0", 8, 4, 100), second = falling_run("b", "16,0,0", 8, 4, 100);
  for (const auto& svg : {draw_loss_chart({first, second}), draw_loss_chart({first})}) {
    CHECK(well_formed(svg));
    const auto drawn = svg.substr(svg.find("<rect"));  // behind the title and description for readers of text
    CHECK(count(drawn, name) == 0);
    CHECK(count(drawn, "m-end</text>") == 2);
  }
}

TEST_CASE("losses that are not finite are left out") {
  RunMetrics run = falling_run("diverged", "dense", 8, 4, 20);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  run.add_step({21, 21'000, {{"dense", nan}}});
  run.add_validation({21, 21'000, {{"dense", nan}}});
  const std::string svg = draw_loss_chart({run});
  const std::string drawing = svg.substr(svg.find("</desc>"));
  CHECK(drawing.find("nan") == std::string::npos);
  CHECK(drawing.find("inf") == std::string::npos);

  run.series.clear();
  run.add_step({1, 1000, {{"dense", nan}}});
  CHECK(fails_saying([&] { draw_loss_chart({run}); }, "runs/diverged", "diverged"));
}

TEST_CASE("names are escaped") {
  RunMetrics run = falling_run("a", "dense", 8, 4, 20);
  run.name = R"(<b> & "c")";
  const std::string svg = draw_loss_chart({run});
  CHECK(well_formed(svg));
  CHECK(svg.find("&lt;b&gt; &amp; &quot;c&quot;") != std::string::npos);
}

TEST_CASE("a long run's picture stays small") {
  CHECK(draw_loss_chart({falling_run("long", "dense", 8, 4, 200'000)}).size() < 100'000);
}

TEST_CASE("the file is written whole, beside and renamed") {
  const RunFixture run("written");
  run.metrics(step_line(10, R"([{"pattern":"dense","loss":5.0}])") +
              step_line(20, R"([{"pattern":"dense","loss":4.0}])"));
  const auto picture = run.directory() / "loss.svg";
  write_loss_chart({run.directory()}, picture);
  CHECK(read_whole_file(picture) == draw_loss_chart({read_metrics(run.directory())}));
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(run.directory())) ++files;
  CHECK(files == 2);  // metrics.jsonl, loss.svg
}

TEST_CASE("no two patterns of the picture look alike, and a long name stays over its own plot") {
  RunMetrics run = falling_run("a", "dense", 8, 4, 20);
  std::vector<PatternLoss> losses;
  for (int i = 0; i < 60; ++i) losses.push_back({fmt::format("{},0,4", 2 + i), 5.0});
  run.add_validation({20, 20'000, losses});
  const std::string svg = draw_loss_chart({run});
  CHECK(well_formed(svg));
  // A pattern's validations: the shape of its marks, their colour, and the dashes between them, or in the legend.
  const std::regex entry(
      "<line [^>]*stroke=\"(#[0-9a-f]+)\" stroke-width=\"2.2\"([^>]*)/>\n<([a-z]+) [^\\n]*fill");
  std::set<std::string> looks;
  std::size_t entries = 0;
  for (std::sregex_iterator it(svg.begin(), svg.end(), entry), none; it != none; ++it, ++entries)
    looks.insert((*it)[1].str() + (*it)[2].str() + (*it)[3].str());
  CHECK(entries >= 60);
  CHECK(looks.size() == entries);
  for (const double y : values_of(svg, "y")) CHECK(y >= 0);

  const std::string name = "a-run-whose-name-says-all-that-was-set-in-it-and-ends-in-d64";
  const auto pair =
      draw_loss_chart({run, falling_run(name, "16,0,4", 5, 4.2, 50), falling_run("c", "8,0,4", 5, 4, 9)});
  CHECK(pair.find(">" + name + "<") == std::string::npos);
  CHECK(pair.find("d64</text>") != std::string::npos);
}

}  // namespace ratplus::report
