#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace switchyard {

// What the command line asked for: its exit code when it is done.
using Action = std::function<int()>;

// One function a subcommand, in the file of its name. Each adds its options to `app` and, when it is chosen, sets
// `action`. Nothing is read or started while the command line is parsed.
void add_train(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_layouts(CLI::App& app, Action& action);
void add_analyze(CLI::App& app, Action& action);
void add_record(CLI::App& app, Action& action);
void add_replay(CLI::App& app, Action& action);
void add_upcycle(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_config(CLI::App& app, Action& action);

}  // namespace switchyard
