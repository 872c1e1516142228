# Writes OUT, the program's version as C++, where it has changed, so that only then anything is built again:
#   cmake -D SOURCE=DIR -D VERSION=0.1.0 -D OUT=FILE -P version.cmake
# The commit is named where SOURCE itself is a repository, not only a folder within one.
cmake_minimum_required(VERSION 3.25)
if(EXISTS ${SOURCE}/.git)
  find_package(Git QUIET)
endif()
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} describe --always --dirty
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(commit)
  string(APPEND VERSION " (${commit})")
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT "#include \"train/setup.h\"

const char* switchyard::program_version() { return \"@VERSION@\"; }
")
