"""The run in which a small AudioVAE learns sound: a store on the device, spectra, critics and a loop for one GPU."""
