package bgp

// What routers have that the documentation has no file of.
const (
	// providerConf is of the host outside: it takes what the border tells others of.
	providerConf = `
router id 198.51.100.9;
protocol device {}
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; }
protocol bgp border_v4 { local as 64999; neighbor 198.51.100.1 as 65000; connect retry time 1; error wait time 1, 2; ipv4 { import all; export none; }; }
protocol bgp border_v6 { local as 64999; neighbor 2001:db8:100::1 as 65000; connect retry time 1; error wait time 1, 2; ipv6 { import all; export none; }; }
`
	// edgeConf is of the border, beside the part about aggregation.
	edgeConf = `
router id 198.51.100.1;
protocol device {}
protocol direct { ipv4; ipv6; interface "out", "tor*"; }
protocol kernel { ipv4 { export where source ~ [RTS_BGP, RTS_STATIC]; }; merge paths; }
protocol kernel { ipv6 { export where source ~ [RTS_BGP, RTS_STATIC]; }; merge paths; }
template bgp tor { local as 65000; graceful restart on; connect retry time 1; error wait time 1, 2; }
template bgp tor4 from tor { ipv4 { import all; export where source ~ [RTS_BGP, RTS_DEVICE]; }; }
template bgp tor6 from tor { ipv6 { import all; export where source ~ [RTS_BGP, RTS_DEVICE]; }; }
protocol bgp tor1_v4 from tor4 { neighbor 10.255.1.2 as 65001; }
protocol bgp tor1_v6 from tor6 { neighbor 2001:db8:ff:1::2 as 65001; }
protocol bgp tor2_v4 from tor4 { neighbor 10.255.2.2 as 65002; }
protocol bgp tor2_v6 from tor6 { neighbor 2001:db8:ff:2::2 as 65002; }
protocol bgp tor2b_v4 from tor4 { neighbor 10.255.3.2 as 65003; }
protocol bgp tor2b_v6 from tor6 { neighbor 2001:db8:ff:3::2 as 65003; }
protocol bgp out_v4 { local as 65000; neighbor 198.51.100.9 as 64999; connect retry time 1; error wait time 1, 2; ipv4 { import none; export where source = RTS_STATIC; }; }
protocol bgp out_v6 { local as 65000; neighbor 2001:db8:100::9 as 64999; connect retry time 1; error wait time 1, 2; ipv6 { import none; export where source = RTS_STATIC; }; }
`
	// tor2bConf is of the second router of rack 2, which has a session of both families by link-local addresses.
	tor2bConf = `
router id 192.0.2.253;
protocol device {}
protocol direct { ipv4; ipv6; interface "rack", "up"; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; }
protocol bfd { interface "rack" { interval 300 ms; multiplier 3; }; }
protocol bgp n3 {
  local as 65003; neighbor fe80::3 as 64513; interface "rack"; graceful restart on; bfd on; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export where source ~ [RTS_BGP, RTS_DEVICE]; extended next hop; };
  ipv6 { import all; export where source ~ [RTS_BGP, RTS_DEVICE]; };
}
template bgp up { local as 65003; graceful restart on; connect retry time 1; error wait time 1, 2; }
protocol bgp border_v4 from up { neighbor 10.255.3.1 as 65000; ipv4 { import all; export where source ~ [RTS_BGP, RTS_DEVICE]; }; }
protocol bgp border_v6 from up { neighbor 2001:db8:ff:3::1 as 65000; ipv6 { import all; export where source ~ [RTS_BGP, RTS_DEVICE]; }; }
`
)
