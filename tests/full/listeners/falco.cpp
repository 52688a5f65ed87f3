/* Falco's own library with the plug-in: what Falco does with them, without its rules' language.
 *
 *   falco config SOCKET                             the session that its gVisor engine asks for
 *   falco check LIBRARY FILTER...                   whether these are filters
 *   falco watch LIBRARY OPEN_PARAMS FORMAT FILTER   what passes the filter, to the end of the source
 */
#include <libsinsp/eventformatter.h>
#include <libsinsp/filter.h>
#include <libsinsp/filter_check_list.h>
#include <libsinsp/plugin.h>
#include <libsinsp/plugin_filtercheck.h>
#include <libsinsp/sinsp.h>

#include <iostream>

static int watch(sinsp &inspector, const std::string &name, filter_check_list &checks, char **words) {
    auto factory = std::make_shared<sinsp_filter_factory>(&inspector, checks);
    auto filter = sinsp_filter_compiler(factory, words[2]).compile();
    sinsp_evt_formatter formatter(&inspector, words[1], checks);
    inspector.open_plugin(name, words[0],
                          sinsp_plugin_platform::SINSP_PLATFORM_GENERIC);
    for (;;) {
        sinsp_evt *event = nullptr;
        std::string text;
        switch (inspector.next(&event)) {
        case SCAP_SUCCESS:
            if (filter->run(event) && formatter.tostring(event, text))
                std::cout << text << std::endl;
            break;
        case SCAP_TIMEOUT:
        case SCAP_FILTERED_EVENT:
            break;
        case SCAP_EOF:
            return 0;
        default:
            throw std::runtime_error(inspector.getlasterr());
        }
    }
}

static int run(int argc, char **argv) {
    sinsp inspector;
    std::string error, mode = argv[1];
    if (mode == "config") {
        std::cout << inspector.generate_gvisor_config(argv[2]) << std::endl;
        return 0;
    }
    auto plugin = inspector.register_plugin(argv[2]);
    if (!plugin->init("", error))
        throw std::runtime_error(error);
    filter_check_list checks;
    checks.add_filter_check(sinsp::new_generic_filtercheck());
    checks.add_filter_check(sinsp_plugin::new_filtercheck(plugin));
    if (mode == "watch")
        return watch(inspector, plugin->name(), checks, argv + 3);
    auto factory = std::make_shared<sinsp_filter_factory>(&inspector, checks);
    for (int i = 3; i < argc; i++)
        sinsp_filter_compiler(factory, argv[i]).compile();
    return 0;
}

int main(int argc, char **argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception &problem) {
        std::cerr << problem.what() << std::endl;
        return 1;
    }
}
