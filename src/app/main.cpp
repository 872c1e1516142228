#include <cstdio>
#include <exception>
#include <new>

#include "app/commands.h"
#include "app/ranks.h"
#include "tensor/error.h"
#include "train/setup.h"

int main(int argc, char** argv) {
  using namespace switchyard;
  CLI::App app("Switchyard pretrains Mixture-of-Experts language models.", "switchyard");
  app.set_version_flag("--version", program_version());
  app.footer(
      "Several ranks:  launch/local.sh CONFIG -n 2   (or mpirun -n 2 switchyard train CONFIG)\n"
      "Exit codes: 0 done, 2 usage or configuration, 3 data or logs, 4 checkpoint, 5 not finite, 6 no memory,\n"
      "            7 communication, 75 stopped by a signal after saving: run again to go on, 76 likewise by an alarm");

  Action action;
  add_train(app, action);
  add_eval(app, action);
  add_generate(app, action);
  add_tokenize(app, action);
  add_inspect(app, action);
  add_verify(app, action);
  add_bench(app, action);
  add_layouts(app, action);
  add_analyze(app, action);
  add_record(app, action);
  add_replay(app, action);
  add_upcycle(app, action);
  add_plan(app, action);
  add_config(app, action);
  try {
    app.parse(argc, argv);
    if (!action) throw CLI::RequiredError("A subcommand");
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return on_ranks(
        [&](ProcessGroup&) -> int { throw Error(text(error.what(), "; see switchyard --help"), Fault::usage); });
  }

  try {
    return action();
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.fault());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: no memory left\n");
    return static_cast<int>(Fault::memory);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(Fault::internal);
  }
}
